"""The folder of cassettes: one file each, named by its key, put there whole. Plain calls, for a thread."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from streamgate_record_replay.cassette import BadCassette, Cassette, read, written


class Shelf:
    """Several workers may share it: who writes last wins."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def make(self) -> None:
        """Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Cassette | None:
        """Raises `BadCassette`, OSError."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        cassette = read(content)
        if cassette.key != key:
            raise BadCassette("its key is not its name")
        return cassette

    def put(self, cassette: Cassette) -> None:
        """Raises OSError; what was there before then still is."""
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(written(cassette))
            Path(name).replace(self._path(cassette.key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.jsonl"
