"""Where a configuration is written: file, environment and flags, each read into a layer; later layers win.

A layer is plain values and, for each of them, where it was written, so that every mistake can be traced to its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

from streamgate.control.problems import Path, Problem, dotted
from streamgate.control.yaml_lines import Document, Unreadable

PREFIX = "STREAMGATE_"

# Kubernetes and Docker give a container such variables for each service they know; one may be called streamgate.
_SERVICE_LINK = re.compile(r"STREAMGATE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_PORT = re.compile(r"STREAMGATE_(\w+_)?PORT")

# What the command line calls a key; `upstream` is a list of URLs and has rules of its own.
FLAGS: dict[str, tuple[str, Path]] = {
    "listen": ("--listen", ("listen",)),
    "admin": ("--admin", ("admin", "listen")),
    "drain_timeout": ("--drain-timeout", ("drain", "timeout")),
    "lameduck": ("--lameduck", ("drain", "lameduck")),
    "log_format": ("--log-format", ("observe", "log_format")),
    "log_level": ("--log-level", ("observe", "log_level")),
}
UPSTREAM_FLAG = "--upstream"


@dataclass(slots=True)
class Layer:
    """Plain values, where each was written (source and line), and the mistakes of reading them."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, tuple[str, int | None]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: Path) -> tuple[str, int | None] | None:
        """Where the value at `path`, or one inside it, or the nearest one around it, was written."""
        while path:
            inside = [known for known in self.origins if known[: len(path)] == path]
            if inside:
                return self.origins[min(inside, key=len)]
            path = path[:-1]
        return None

    def problem(self, path: Path, expected: str, *, blame: Path | None = None) -> Problem:
        """A mistake at `path`; what is nowhere written is traced to `blame`, which made it one."""
        source, line = self.origin(path) or self.origin(blame or ()) or ("configuration", None)
        return Problem(source, dotted(path), expected, line)

    def put(self, path: Path, value: Any, source: str, lines: Mapping[Path, int] | None = None) -> None:
        """Write `value` at `path` over what is there: maps are joined key by key, anything else is replaced."""
        if isinstance(value, dict):
            self._map_at(path)
            self.origins.setdefault(path, (source, (lines or {}).get(path)))
            for key, item in value.items():
                self.put((*path, key), item, source, lines)
            return
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]
        self._map_at(path[:-1])[str(path[-1])] = value
        self.origins[path] = (source, None)
        self.origins.update((at, (source, line)) for at, line in (lines or {}).items() if at[: len(path)] == path)

    def _map_at(self, path: Path) -> dict[str, Any]:
        found = self.tree
        for depth, part in enumerate(path, 1):
            below = found.get(str(part))
            if not isinstance(below, dict):
                self.origins.pop(path[:depth], None)  # what stood there is no more
                below = found[str(part)] = {}
            found = below
        return found


def read_all(file: FilePath | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Layer:
    """The three sources in one layer, the later over the earlier; mistakes are in its `problems`."""
    layer = Layer()
    if file is not None:
        _read_file(layer, file)
    _read_environment(layer, environ)
    _read_flags(layer, flags)
    return layer


def _read_file(layer: Layer, file: FilePath) -> None:
    source = str(file)
    try:
        document = Document(file.read_bytes().decode("utf-8-sig"), source)
    except OSError as error:
        layer.problems.append(Problem(source, "", f"expected a file that can be read ({error.strerror})"))
    except UnicodeDecodeError:
        layer.problems.append(Problem(source, "", "expected UTF-8"))
    except Unreadable as error:
        layer.problems.append(Problem(source, "", error.expected, error.line))
    else:
        layer.problems.extend(document.problems)
        if isinstance(document.value, dict):
            layer.put((), document.value, source, document.lines)
        elif document.value is not None:
            layer.problems.append(Problem(source, "", "expected a map of keys", 1))


def _read_environment(layer: Layer, environ: Mapping[str, str]) -> None:
    """`STREAMGATE_A__B` is the key `a.b`; the more specific variable wins over the less specific one."""
    ours = [name for name in environ if name.startswith(PREFIX) and not _is_service_link(name, environ[name])]
    for name in sorted(ours, key=lambda name: (name.count("__"), name)):
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if not all(path):
            layer.problems.append(Problem(name, "", "expected the name of a key, such as STREAMGATE_CLOCKS__IDLE"))
        elif not environ[name].strip():
            expected = "expected a value: unset the variable, or write null where the key allows it"
            layer.problems.append(Problem(name, dotted(path), expected))
        else:
            _read_variable(layer, name, path, environ[name])


def _read_variable(layer: Layer, name: str, path: Path, text: str) -> None:
    try:
        document = Document(text, name)
    except Unreadable as error:
        layer.problems.append(Problem(name, dotted(path), error.expected))
        return
    layer.problems.extend(document.problems)
    layer.put(path, document.value, name)


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name)) and value.startswith(("tcp://", "udp://", "sctp://"))


def _read_flags(layer: Layer, flags: Mapping[str, Any]) -> None:
    """Raises KeyError for a flag that does not exist: that is a programmer's mistake."""
    for name, value in flags.items():
        if name != "upstream" and value is not None:
            spelled, path = FLAGS[name]
            layer.put(path, value, spelled)
    urls = flags.get("upstream") or ()
    if urls:
        # Without keys of its own the gateway lets a client's key through, so that an SDK reaches an API with its own.
        keyed = isinstance(layer.tree.get("keys"), list) or any(layer.tree.get(key) for key in ("keys_file", "jwt"))
        auth = "none" if keyed else "client"
        named = zip(_names(urls), urls, strict=True)
        layer.put(("upstreams",), [{"name": name, "url": url, "auth": auth} for name, url in named], UPSTREAM_FLAG)


def _names(urls: Sequence[str]) -> list[str]:
    """A name for each URL, from its host and port; the second of the same name gets -2."""
    names: list[str] = []
    for url in urls:
        base = name = _name(url)
        nth = 1
        while name in names:
            nth += 1
            name = f"{base}-{nth}"
        names.append(name)
    return names


def _name(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
    except ValueError:
        return "upstream"
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-")[:48]
    return f"{clean}-{port}" if clean else "upstream"
