"""What must hold between the keys of a configuration. Pure: plain values in, findings out.

They look at what was written, not at the validated models: so they also speak when another key is wrong, and an
operator sees every mistake at once. What is of the wrong type here is reported by the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from importlib.util import find_spec
from typing import Any, NamedTuple

from streamgate.control.admitting import DEFAULT_PRIORITIES
from streamgate.control.problems import Path
from streamgate.control.values import Address
from streamgate.hooks.loader import name_of

OPEN_TO_ALL = (
    "expected a choice, because {listen} can be reached from other machines: listen on loopback (127.0.0.1), "
    "or write `keys: none` to be open on purpose, or list the clients' keys: "
    '`keys: [{{name: me, key: "${{MY_KEY}}"}}]` (`streamgate key new` makes one)'
)

CLIENTS_KEYS = 'expected none or {key: "${NAME}"}: with `keys`, what clients send is for the gateway alone'
BOTH = "expected no `{key}` beside `keys: none`: is the gateway open to all, or is it not?"
EXTRA = "expected {what} to be installed: pip install 'streamgate[{extra}]'"


class Finding(NamedTuple):
    """`path` is wrong; when it was written nowhere, `blame` is the key that made it so."""

    path: Path
    expected: str
    blame: Path | None = None


Installed = Callable[[str], bool]


def installed(module: str) -> bool:
    return find_spec(module) is not None


def check(tree: Mapping[str, Any], present: Installed = installed) -> Iterator[Finding]:
    """Everything that is wrong between keys, and the packages that they need and `present` does not find."""
    for key, what in (("upstreams", "upstream"), ("keys", "key"), ("tenants", "tenant"), ("priorities", "priority")):
        yield from _repeated(tree, key, what)
    yield from _route_upstreams(tree)
    yield from _route_plugins(tree)
    yield from _key_priorities(tree)
    yield from _reserved(tree)
    yield from _clients_keys(tree)
    yield from _open_port(tree)
    yield from _same_port(tree)
    yield from _extras(tree, present)


def check_keys_file(
    tree: Mapping[str, Any], *, priorities: AbstractSet[str], names: AbstractSet[str]
) -> Iterator[Finding]:
    """The same for a keys file, `{"keys": [...]}`, beside a configuration with these classes and names of keys."""
    yield from _repeated(tree, "keys", "key", names)
    yield from _unknown_priorities(tree, priorities)


def _items(tree: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    listed = tree.get(key)
    for index, item in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(item, dict):
            yield index, item


def _texts(value: Any) -> list[tuple[int, str]]:
    return [(i, text) for i, text in enumerate(value) if isinstance(text, str)] if isinstance(value, list) else []


def _repeated(tree: Mapping[str, Any], key: str, what: str, taken: AbstractSet[str] = frozenset()) -> Iterator[Finding]:
    names = set(taken)
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


def _route_plugins(tree: Mapping[str, Any]) -> Iterator[Finding]:
    written = [item.get("name") or name_of(str(item.get("use", ""))) for _, item in _items(tree, "plugins")]
    names = {name for name in written if isinstance(name, str) and name}
    known = ", ".join(sorted(names)) or "there is none"
    for index, route in _items(tree, "routes"):
        for at, name in _texts(route.get("plugins")):
            if name not in names:
                yield Finding(("routes", index, "plugins", at), f"expected the name of a plugin ({known})")


def _key_priorities(tree: Mapping[str, Any]) -> Iterator[Finding]:
    listed = tree.get("priorities")
    if listed is None or isinstance(listed, list):
        named = {item["name"] for _, item in _items(tree, "priorities") if isinstance(item.get("name"), str)}
        yield from _unknown_priorities(
            tree, named if listed is not None else {each.name for each in DEFAULT_PRIORITIES}
        )


def _unknown_priorities(tree: Mapping[str, Any], known: AbstractSet[str]) -> Iterator[Finding]:
    for index, key in _items(tree, "keys"):
        name = key.get("priority")
        if isinstance(name, str) and name not in known:
            yield Finding(("keys", index, "priority"), f"expected the name of a priority ({', '.join(sorted(known))})")


def _reserved(tree: Mapping[str, Any]) -> Iterator[Finding]:
    shares = [item.get("reserved") for _, item in _items(tree, "priorities")]
    # 1e-9: ten classes of 0.1 make a little more than 1
    if sum(share for share in shares if isinstance(share, int | float)) > 1 + 1e-9:
        yield Finding(("priorities",), "expected shares in `reserved` that are 1 in all, or less")


def _clients_keys(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """With keys of its own the gateway would pass them on to the upstream: somebody else would learn them."""
    if authenticates(tree):
        for index, upstream in _items(tree, "upstreams"):
            if upstream.get("auth") == "client":
                yield Finding(("upstreams", index, "auth"), CLIENTS_KEYS)


def authenticates(tree: Mapping[str, Any]) -> bool:
    """Whether clients need a key or a token, as far as what is written can tell."""
    return isinstance(tree.get("keys"), list) or any(tree.get(key) is not None for key in ("keys_file", "jwt"))


def _open_port(tree: Mapping[str, Any]) -> Iterator[Finding]:
    address = _address(tree.get("listen"))
    if tree.get("keys") is None:
        if address is not None and not address.loopback and not authenticates(tree):
            yield Finding(("keys",), OPEN_TO_ALL.format(listen=address), blame=("listen",))
    elif tree.get("keys") == "none":
        for key in ("keys_file", "jwt"):
            if tree.get(key) is not None:
                yield Finding((key,), BOTH.format(key=key))


def _extras(tree: Mapping[str, Any], present: Installed) -> Iterator[Finding]:
    if tree.get("jwt") is not None and not (present("jwt") and present("cryptography")):
        yield Finding(("jwt",), EXTRA.format(what="PyJWT", extra="jwt"))
    limits = tree.get("limits")
    if isinstance(limits, dict) and limits.get("store") is not None and not present("redis"):
        yield Finding(("limits", "store"), EXTRA.format(what="redis", extra="redis"))


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
