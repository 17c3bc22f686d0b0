"""Which route a stream belongs to, as a label: what the application declared, never what a client asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.routing import Match, Mount
from starlette.types import Scope

UNROUTED = "none"  # no router of Starlette's led there


def route_template(scope: Scope) -> str:
    """The matched route's path as it was declared, mounts included, such as "/rooms/{room}"; "none" without a route.

    Never the path that was asked for: clients choose that, and every new one would be a new series.
    """
    prefix, routes = mounted(scope)
    route = scope.get("route")
    if route is None:  # older Starlettes tell the endpoint only
        endpoint = scope.get("endpoint")
        route = next((each for each in routes if endpoint and getattr(each, "endpoint", None) is endpoint), None)
    leaf = "" if isinstance(route, Mount) else getattr(included(scope, route), "path", "")
    return prefix + leaf or UNROUTED


def included(scope: Scope, route: Any) -> Any:
    """What holds the whole path of a route that came by FastAPI's `include_router`; any other is its own."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    return context if route is not None and getattr(context, "original_route", None) is route else route


def mounted(scope: Scope) -> tuple[str, Iterable[Any]]:
    """The templates of the mounts on the way to the endpoint, and the routes of the innermost one."""
    routes = getattr(scope.get("router"), "routes", ())
    prefix, inside = "", {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    # `root_path` is what the mounts took of the path; it cannot be used itself, for it has the parameters' values.
    while inside["root_path"] != scope.get("root_path", ""):
        mount, below = next(matching(routes, inside), (None, {}))
        if mount is None:
            break
        prefix, routes = prefix + mount.path, mount.routes or ()
        inside |= below
    return prefix, routes


def matching(routes: Iterable[Any], scope: Scope) -> Iterator[tuple[Mount, Scope]]:
    for route in routes:
        if isinstance(route, Mount):
            match, below = route.matches(scope)
            if match is Match.FULL:
                yield route, below
