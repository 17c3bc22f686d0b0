"""From the configuration to plugins: found, checked, made. Every mistake at once, each with its key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from streamgate.errors import StreamgateError
from streamgate.hooks.chain import CHUNKS, Plugins
from streamgate.hooks.finding import Found, NotUsable, found, plugin_class, settings_of
from streamgate.hooks.member import Journal, Member
from streamgate.hooks.spec import Facade, Fail, Plugin, hooks_of
from streamgate.hooks.watchdog import Running

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
Path = tuple[str | int, ...]
Reading = Callable[["list[ErrorDetails]"], Iterable[tuple[Path, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """One entry of `plugins`. `name` "" is the entry point's, or the class's; `budget` in seconds; `routes` are globs
    of models, empty for all; `fail` None leaves it to the plugin; `settings` are as written, or validated already."""

    use: str
    name: str = ""
    fail: Fail | None = None
    budget: float = 1.0
    routes: tuple[str, ...] = ()
    settings: Mapping[str, Any] | BaseModel = field(default_factory=dict)


class PluginProblem(NamedTuple):
    """One mistake: its path below `plugins`, such as `(0, "settings", "patterns")`, and what was expected there."""

    path: Path
    expected: str


class PluginError(StreamgateError):
    """Plugins that cannot be used as configured; `problems` holds every mistake that was found."""

    def __init__(self, problems: Sequence[PluginProblem]) -> None:
        super().__init__("\n".join(f"plugins{_dotted(problem.path)}: {problem.expected}" for problem in problems))
        self.problems = tuple(problems)


class Chosen(NamedTuple):
    """A configured plugin that was found and whose settings are right, before it is made."""

    name: str
    kind: type[Plugin]
    settings: BaseModel | None
    config: PluginConfig


def plainly(details: list[ErrorDetails]) -> Iterable[tuple[Path, str]]:
    """What is wrong with settings, in pydantic's words; the messages alone: a value may be a key."""
    return [(wrong["loc"], wrong["msg"]) for wrong in details]


def check(
    configs: Sequence[PluginConfig],
    points: Found = found,
    *,
    context: Mapping[str, Any] | None = None,
    reading: Reading = plainly,
) -> list[Chosen]:
    """Find every plugin and validate its settings; nothing is made yet. Raises `PluginError` with all mistakes.

    `context` is what the settings' validators are given: `environ`, for references. `reading` says what they found.
    """
    chosen: list[Chosen] = []
    problems: list[PluginProblem] = []
    names: set[str] = set()
    for position, config in enumerate(configs):
        try:
            kind = plugin_class(config.use, points)
        except NotUsable as why:
            problems.append(PluginProblem((position, "use"), str(why)))
            continue
        name = config.name or name_of(config.use)
        wrong = [*_wrong_name(name, names), *_wrong_hooks(kind, config)]
        names.add(name)
        settings, more = _validated(kind, config.settings, context, reading)
        wrong += more
        problems += [PluginProblem((position, *problem.path), problem.expected) for problem in wrong]
        if not wrong:
            chosen.append(Chosen(name, kind, settings, config))
    if problems:
        raise PluginError(problems)
    return chosen


def load(
    configs: Sequence[PluginConfig], facade: Callable[[str], Facade], journal: Journal, points: Found = found
) -> Plugins:
    """Make the configured plugins, in order; `facade` gives each its gateway by name. Raises `PluginError`."""
    running = Running()
    members: list[Member] = []
    problems: list[PluginProblem] = []
    for position, (name, kind, settings, config) in enumerate(check(configs, points)):
        try:
            plugin = kind(settings, facade(name))
        except Exception as broken:  # noqa: BLE001 - a constructor may raise anything
            problems.append(PluginProblem((position,), f"cannot be made: {type(broken).__name__}: {broken}"))
            continue
        if type(plugin.window) is not int or plugin.window < 0:
            problems.append(PluginProblem((position,), "its window must be a number of characters"))
        members.append(
            Member(name, plugin, journal, running, fail=config.fail, budget=config.budget, routes=config.routes)
        )
    if problems:
        raise PluginError(problems)
    return Plugins(members, journal, running)


def name_of(use: str) -> str:
    """What a plugin is called when the configuration does not say it."""
    return _HUMP.sub("_", use.rpartition(":")[2]).lower().replace("-", "_")


def _wrong_name(name: str, taken: set[str]) -> list[PluginProblem]:
    if not NAME.fullmatch(name):
        return [
            PluginProblem(("name",), "expected lower case letters, digits and underscores, a letter first, 40 at most")
        ]
    return (
        [PluginProblem(("name",), f"expected another name: there already is a plugin {name}")] if name in taken else []
    )


def _wrong_hooks(kind: type[Plugin], config: PluginConfig) -> list[PluginProblem]:
    hooks = hooks_of(kind)
    problems = [
        PluginProblem(("use",), f"{hook} is `async def`, so the plugin must say `waits = True`")
        for hook in CHUNKS
        if hook in hooks and inspect.iscoroutinefunction(getattr(kind, hook)) and not kind.waits
    ]
    if not hooks:
        problems.append(PluginProblem(("use",), "expected a plugin with at least one hook"))
    if config.fail not in (None, "open", "closed"):
        problems.append(PluginProblem(("fail",), "expected open or closed"))
    if not 0 < config.budget <= 60:
        problems.append(PluginProblem(("budget",), "expected more than 0 and at most 60 seconds"))
    return problems


def _validated(
    kind: type[Plugin], given: Mapping[str, Any] | BaseModel, context: Mapping[str, Any] | None, reading: Reading
) -> tuple[BaseModel | None, list[PluginProblem]]:
    from pydantic import ValidationError  # noqa: PLC0415 - only where there are plugins

    model = settings_of(kind)
    if model is None:
        return None, [PluginProblem(("settings",), "expected none: this plugin has no settings")] if given else []
    if isinstance(given, model):
        return given, []
    try:
        return model.model_validate(dict(given), context=context), []
    except ValidationError as error:
        found_wrong = reading(error.errors(include_url=False))
        return None, [PluginProblem(("settings", *path), expected) for path, expected in found_wrong]


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
