"""`python -m streamgate_audit verify FILE...`: 0 when every line is the plugin's, torn ones included; 1 otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from streamgate_audit.verify import verified


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2 or arguments[0] != "verify":
        sys.stderr.write("usage: python -m streamgate_audit verify FILE...\n")
        return 2
    worst = 0
    for name in arguments[1:]:
        try:
            with Path(name).open("rb") as lines:
                report = verified(lines)
        except OSError as error:
            sys.stderr.write(f"{name}: {error.strerror}\n")
            worst = 1
            continue
        sys.stdout.write(f"{name}: {report}\n")
        worst = max(worst, int(bool(report.foreign)))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
