"""Reading a file back."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamgate_audit.__main__ import main
from streamgate_audit.lines import dropped, line
from streamgate_audit.verify import verified

REQUEST = b'{"v":1,"kind":"request","at":"2026-03-01T12:00:00.000Z","id":"r"}\n'


@pytest.mark.parametrize(
    ("last", "torn", "foreign"),
    [
        *((REQUEST[:cut], [3], []) for cut in (1, 5, 20, len(REQUEST) - 2)),
        (b"\0\0\0\n", [3], []),  # a power failure
        (b"\n", [3], []),
        (b"hello\n", [], [3]),
        (b'{"level":"info"}\n', [], [3]),
        (b"[1]\n", [], [3]),
        (b"", [], []),
    ],
)
def test_every_line_is_one_of_ours_a_torn_one_or_another_program_s(last: bytes, torn: list[int], foreign: list[int]):
    """A torn one begins as ours do."""
    report = verified([REQUEST, line(dropped(7, 1772366401.0)), *([last] if last else [])])
    assert (report.requests, report.dropped, report.torn, report.foreign) == (1, 7, torn, foreign)


def test_the_command_tells_how_much_is_in_files_and_fails_for_what_is_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """0 for ours, torn lines included; 1 for others' and for files that cannot be read; 2 for wrong use."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(REQUEST * 2 + line(dropped(7, 1772366401.0)) + REQUEST[:9])
    bad.write_bytes(b"hello\n" * 12)
    (tmp_path / "empty").touch()
    assert main(["verify", str(good), str(tmp_path / "empty")]) == 0
    out = capsys.readouterr().out
    assert "2 requests, 2026-03-01T12:00:00.000Z to 2026-03-01T12:00:01.000Z, 7 dropped, torn: line 4\n" in out
    assert "empty: 0 requests\n" in out
    assert main(["verify", str(good), str(bad)]) == 1
    assert "not of this plugin: line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...\n" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "none")]) == 1
    assert main(["verify"]) == main(["check", "x"]) == 2
    assert "none: No such file" in capsys.readouterr().err
