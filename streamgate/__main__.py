"""`python -m streamgate` is the `streamgate` command."""

from __future__ import annotations

from streamgate.cli import main

if __name__ == "__main__":
    main(prog_name="streamgate")
