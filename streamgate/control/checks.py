"""What must hold between the keys of a configuration. Pure: plain values in, findings out.

They look at what was written, not at the validated models: so they also speak when another key is wrong, and an
operator sees every mistake at once. What is of the wrong type here is reported by the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from streamgate.control.problems import Path
from streamgate.control.values import Address

OPEN_TO_ALL = (
    "expected a choice, because {listen} can be reached from other machines: listen on loopback (127.0.0.1), "
    "or write `keys: none` to be open on purpose, or list the clients' keys: "
    '`keys: [{{name: me, key: "${{MY_KEY}}"}}]`'
)

CLIENTS_KEYS = 'expected none or {key: "${NAME}"}: with a list of `keys`, what clients send is for the gateway alone'


class Finding(NamedTuple):
    """`path` is wrong; when it was written nowhere, `blame` is the key that made it so."""

    path: Path
    expected: str
    blame: Path | None = None


def check(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong between keys."""
    yield from _upstream_names(tree)
    yield from _route_upstreams(tree)
    yield from _key_names(tree)
    yield from _clients_keys(tree)
    yield from _open_port(tree)
    yield from _same_port(tree)


def _items(tree: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    listed = tree.get(key)
    for index, item in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(item, dict):
            yield index, item


def _texts(value: Any) -> list[tuple[int, str]]:
    return [(i, text) for i, text in enumerate(value) if isinstance(text, str)] if isinstance(value, list) else []


def _upstream_names(tree: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _repeated(tree, "upstreams", "upstream")


def _key_names(tree: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _repeated(tree, "keys", "key")


def _repeated(tree: Mapping[str, Any], key: str, what: str) -> Iterator[Finding]:
    names: set[str] = set()
    for index, item in _items(tree, key):
        name = item.get("name")
        if isinstance(name, str):
            if name in names:
                yield Finding((key, index, "name"), f"expected a name that no other {what} has")
            names.add(name)


def _route_upstreams(tree: Mapping[str, Any]) -> Iterator[Finding]:
    names = {item.get("name") for _, item in _items(tree, "upstreams") if isinstance(item.get("name"), str)}
    known = ", ".join(sorted(str(name) for name in names)) or "there is none"
    for index, route in _items(tree, "routes"):
        for at, name in _texts(route.get("upstreams")):
            if name not in names:
                yield Finding(("routes", index, "upstreams", at), f"expected the name of an upstream ({known})")


def _clients_keys(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """With keys of its own the gateway would pass them on to the upstream: somebody else would learn them."""
    if isinstance(tree.get("keys"), list):
        for index, upstream in _items(tree, "upstreams"):
            if upstream.get("auth") == "client":
                yield Finding(("upstreams", index, "auth"), CLIENTS_KEYS)


def _open_port(tree: Mapping[str, Any]) -> Iterator[Finding]:
    address = _address(tree.get("listen"))
    if address is not None and not address.loopback and tree.get("keys") is None:
        yield Finding(("keys",), OPEN_TO_ALL.format(listen=address), blame=("listen",))


def _same_port(tree: Mapping[str, Any]) -> Iterator[Finding]:
    admin = tree.get("admin")
    address = _address(admin.get("listen")) if isinstance(admin, dict) else None
    if address is not None and address.port and address == tree.get("listen"):
        yield Finding(("admin", "listen"), "expected another address than `listen`", blame=("listen",))


def _address(written: Any) -> Address | None:
    try:
        return Address(written) if isinstance(written, str) else None
    except ValueError:
        return None
