"""The benchmark of the SSE response runs; what it finds is its reader's business."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPECTED = {  # in how many of the four responses each row has a number
    "alone.bytes": 3,
    "alone.dict": 2,
    "alone.fields": 2,
    "alone.event": 3,
    "alone.str": 4,
    "alone.timeout": 2,
    "alone.awaits": 4,
    "alone.observed": 1,
    "alone.short": 4,
}


def test_every_row_of_the_response_alone_has_its_numbers(tmp_path: Path):
    """Each row has a number for ours and for every other response that can do the same, and each target a verdict."""
    out = tmp_path / "numbers.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "sse" / "compare.py"), "--quick", "--only", "alone"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--slice", "0.0005", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {row["key"]: len(row["medians"]) for row in rows} == EXPECTED
    for row in rows:
        assert all(math.isfinite(number) and number > 0 for number in row["medians"].values()), row
        assert "streamgate" in row["medians"]
        assert f"| {row['label']} | us |" in done.stdout
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("met ", "not met "))]
    assert len(verdicts) == 5
