"""docs/admission.md is held against the code: its configurations, its levels, its codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgate.admission.claim import Level
from streamgate.admission.refusals import refusal, unavailable
from streamgate.admission.ticket import Denied, Unit
from streamgate.control.admitting import DEFAULT_PRIORITIES, LevelLimits, Limits
from streamgate.control.config import load
from streamgate.errors import Reason
from streamgate.relay.quota import NAMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "admission.md").read_text()
ENV = {name: f"sk-{name}" for name in ("NIGHTLY_KEY", "PARTNER_KEY", "REDIS_PASSWORD", "GPU_B_KEY", "TEAM_A_KEY")}
OWN, SHARED = (Level.TENANT, Level.KEY), (Level.GLOBAL, Level.MODEL, Level.UPSTREAM)


def blocks() -> list[tuple[str, str]]:
    """Every YAML block of the pages about limits, with where it is."""
    pages = [ROOT / "README.md", ROOT / "docs" / "admission.md", ROOT / "docs" / "shared-limits.md"]
    return [
        (f"{page.stem}-{number}", block)
        for page in pages
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in blocks()])
def test_every_configuration_is_one(tmp_path: Path, text: str) -> None:
    """`streamgate check` accepts each as it stands."""
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    load(file, ENV, {})


def test_every_level_has_its_row_and_every_key_exists() -> None:
    """The levels of the code; `limits.x` is a key of the configuration."""
    rows = re.findall(r"^\| (\w+) \| .*`", PAGE.partition("## Levels")[2].partition("\n## ")[0], re.MULTILINE)
    assert set(rows) == {level.value for level in Level}
    named = set(re.findall(r"`limits\.(\w+)`", PAGE))
    assert named and named <= Limits.model_fields.keys()
    assert all(f"`{name}`" in PAGE for name in LevelLimits.model_fields)
    assert [each.name for each in DEFAULT_PRIORITIES] == re.findall(r"- \{name: (\w+)", PAGE.partition("## Classes")[2])


def refusals() -> list[tuple[str, int, str]]:
    """Code, status and reason of all that the ledger and the store deny."""
    denied = [Denied(reason, level, 1.0, own=True) for reason in (Reason.RATE, Reason.CONCURRENCY) for level in OWN]
    waited = (Reason.CONCURRENCY, Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT)
    denied += [Denied(reason, level, 1.0) for reason in waited for level in SHARED]
    denied += [Denied(Reason.RATE, level, 1.0, unit=unit) for level in SHARED for unit in Unit]
    return [(each.code, each.status, each.reason.value) for each in (*map(refusal, denied), unavailable(1.0))]


def test_every_refusal_has_its_row() -> None:
    """Here with code, status and reason; among all codes with each of its statuses; for operators by reason."""
    errors = (ROOT / "docs" / "errors.md").read_text()
    for code, status, reason in set(refusals()):
        assert f"| `{code}` | {status} | `{reason}` |" in PAGE, (code, status)
        listed = re.search(rf"^\| `{code}` \| ([\d, ]+) \|", errors, re.MULTILINE)
        assert listed and str(status) in listed[1], (code, status)
    for code, _, reason in re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE):
        assert f"| `{code}` |" in errors and reason in list(Reason), code


def test_the_headers_are_those_that_are_sent() -> None:
    """All six, under their names."""
    assert all(f"{name}:" in PAGE for name in NAMES)
