"""Compares four responses in one run: streamgate's, sse-starlette's, Starlette's StreamingResponse, FastAPI's own SSE.

    python benchmarks/sse/compare.py [--quick] [--only alone|uvicorn] [--rounds N]

Prints a table with absolute numbers and ratios to sse-starlette, then how the targets were met; writes JSON. Whatever
the numbers are, it exits with 0: this is no test. See the README in the folder above.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # accounting.py and gateways.py, which the gateway's benchmark shares

import alone
import loads
from table import Row, printed, verdicts

PACKAGES = ("starlette", "sse-starlette", "fastapi", "uvicorn", "uvloop", "httptools", "anyio")
FOOTNOTE = """\
us are of CPU, in brackets the ratio to sse-starlette in this run (medians; ratios are taken within each round).
"-": it does not take such items, or cannot do this. Where the row names dicts under uvicorn, and in those of a source
that awaits and of short responses, StreamingResponse is given encoded bytes, FastAPI ServerSentEvent(raw_data=...)."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare responses that send server-sent events.")
    parser.add_argument("--quick", action="store_true", help="a look: fewer rounds, shorter windows")
    parser.add_argument("--only", choices=("alone", "uvicorn"))
    parser.add_argument("--rounds", type=int, help="of either part (default: alone 15, under uvicorn 5; quick: 3, 1)")
    parser.add_argument("--slice", type=float, help="s of CPU for each number of the response alone")
    parser.add_argument("--out", type=Path, help="the file for the numbers in full; default: a new one in results/")
    return parser.parse_args()


def measured(asked: argparse.Namespace) -> list[Row]:
    sizes = loads.Sizes(rounds=asked.rounds or 5)
    if asked.quick:
        sizes = loads.Sizes(rounds=asked.rounds or 1, seconds=0.6, paced_seconds=1.0, ping_seconds=2.0)
    rows: list[Row] = []
    if asked.only != "uvicorn":
        print("the response alone", flush=True)
        rows += alone.measured(
            asked.rounds or (3 if asked.quick else 15), asked.slice or (0.02 if asked.quick else 0.05)
        )
    if asked.only != "alone":
        with tempfile.TemporaryDirectory(prefix="streamgate-bench-") as folder:
            rows += loads.measured(sizes, Path(folder))
    return rows


def circumstances() -> dict[str, Any]:
    """Where and with what; a number without these is worth little."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    asked = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand idle streams for each of four servers
    started, began = circumstances(), time.monotonic()
    rows = measured(asked)
    reached = verdicts(rows)
    print(f"\n{printed(rows)}\n\n{FOOTNOTE}\n\n" + "\n".join(reached))
    written = {"machine": started, "rows": [row.facts() for row in rows], "targets": reached}
    out = asked.out or Path(__file__).parents[1] / "results" / time.strftime("sse-%Y%m%dT%H%M%S.json", time.gmtime())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1))
    print(f"\n{time.monotonic() - began:.0f} s; written to {os.path.relpath(out)}")


if __name__ == "__main__":
    main()
