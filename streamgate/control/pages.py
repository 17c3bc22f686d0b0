"""The live page's files, read once: what is not listed here is not served, whatever its path says."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX = "index.html"
FILES = (
    "console.css", "console.js", "format.js", "tables.js", "charts.js", "panels.js", "actions.js", "icon.svg",
    "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css",
)  # fmt: skip

# Nothing from elsewhere, nothing inline, and in nobody's frame: names of models are strangers' text.
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def pages() -> list[Route]:
    """`/` and `/console/{file}`."""
    folder = resources.files("streamgate.control") / "console"
    routes = [_route("/", INDEX, (folder / INDEX).read_bytes())]
    return routes + [_route(f"/console/{name}", name, (folder / name).read_bytes()) for name in FILES]


def _route(path: str, name: str, body: bytes) -> Route:
    headers = HEADERS | {"content-type": CONTENT_TYPES[name.rpartition(".")[2]]}

    async def get_file(request: Request) -> Response:
        return Response(body, headers=headers)

    return Route(path, get_file, methods=["GET"])
