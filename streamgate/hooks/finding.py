"""Where plugins are: entry points of installed distributions, and `module:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

from streamgate.hooks.spec import API, Plugin, hooks_of

if TYPE_CHECKING:
    from pydantic import BaseModel

GROUP = "streamgate.plugins"


class Point(Protocol):
    """An entry point, as far as it matters here."""

    @property
    def dist(self) -> Distribution | None: ...
    def load(self) -> Any: ...


Found = Callable[[], Mapping[str, Point]]


class NotUsable(Exception):
    """There is no such plugin, or it cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, for `streamgate plugins`."""

    name: str
    type: str
    default: str  # "" when it must be given
    text: str


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed plugin; `problem` says why it cannot be used."""

    use: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    text: str = ""
    problem: str = ""


def found() -> dict[str, EntryPoint]:
    """The entry points of all installed distributions, by the name to `use` them by."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def plugin_class(use: str, points: Found = found) -> type[Plugin]:
    """The class behind `use`, checked. Raises `NotUsable`."""
    entry = points().get(use)
    if entry is not None:
        return _checked(_loaded(entry.load, use), use)
    module, colon, name = use.partition(":")
    if not colon or not module or not name:
        names = ", ".join(sorted(points())) or "none"
        raise NotUsable(f"no plugin {use!r} is installed (installed: {names}), and it is not module:Class")
    return _checked(_loaded(lambda: getattr(_module(module), name), use), use)


def installed(points: Found = found) -> list[Installed]:
    """All installed plugins by name, those that cannot be used among them."""
    return [_described(use, entry, points) for use, entry in sorted(points().items())]


def settings_of(kind: type[Plugin]) -> type[BaseModel] | None:
    """The model of its settings."""
    model: type[BaseModel] | None = getattr(kind, "Settings", None)
    return model


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise NotUsable(f"there is no module {name!r}") from None
        raise


def _loaded(load: Callable[[], Any], use: str) -> Any:
    try:
        return load()
    except NotUsable:
        raise
    except AttributeError:
        raise NotUsable(f"there is no such class: {use!r}") from None
    except Exception as broken:  # noqa: BLE001 - a module may raise anything when it is imported
        raise NotUsable(f"{use!r} cannot be imported: {type(broken).__name__}: {broken}") from None


def _checked(kind: object, use: str) -> type[Plugin]:
    if not isinstance(kind, type) or not issubclass(kind, Plugin):
        raise NotUsable(f"{use!r} is not a subclass of streamgate.hooks.Plugin")
    if kind.api != API:
        raise NotUsable(f"{use!r} was written for version {kind.api} of the plugin interface, this gateway has {API}")
    return kind


def _described(use: str, entry: Point, points: Found) -> Installed:
    name = entry.dist.name if entry.dist is not None else ""
    version = entry.dist.version if entry.dist is not None else ""
    try:
        kind = plugin_class(use, points)
    except NotUsable as why:
        return Installed(use, name, version, problem=str(why))
    text = (kind.__doc__ or "").strip().partition("\n")[0]
    return Installed(use, name, version, hooks_of(kind), _settings(kind), text)


def _settings(kind: type[Plugin]) -> tuple[Setting, ...]:
    model = settings_of(kind)
    if model is None:
        return ()
    return tuple(
        Setting(
            field.alias or name,
            getattr(field.annotation, "__name__", str(field.annotation)),
            "" if field.is_required() else repr(field.get_default(call_default_factory=False)),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    )
