"""Models to events; generator functions to endpoints, under Starlette and FastAPI alike."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, get_origin

import anyio
import pytest
from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from streamgate.sse.event import ServerSentEvent, ensure_bytes
from streamgate.sse.models import event_stream, model_events
from streamgate.sse.response import EventSourceResponse

if TYPE_CHECKING:
    from collections.abc import Mapping as OnlyForTheTypeChecker

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        # The check for tasks left behind is asyncio's; trio has no task without a nursery.
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.leaves_tasks),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


class Order(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    number: int
    note: str = Field("ä\nb", serialization_alias="remark")


@dataclass
class Point:
    x: Any
    inner: tuple[Order, ...] | list[Point] = ()


@pydantic_dataclass
class Checked:
    y: int


def wire(*items: object) -> list[bytes]:
    return [ensure_bytes(item, "\r\n") for item in items]


def kind(model: object) -> str:
    return type(model).__name__


async def later(item: object) -> AsyncIterator[object]:
    yield item


class Both:
    """Synchronous and not, and says which was closed."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return "s"

    def close(self) -> None:
        self.ended.append("sync")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return "a"

    async def aclose(self) -> None:
        self.ended.append("async")


class OnlySync:
    def __init__(self, both: Both) -> None:
        self.both = both

    def __iter__(self) -> Iterator[str]:
        return self.both


class Bare:
    """An asynchronous source, and nothing else."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return "b"


# ---- model_events


@pytest.mark.parametrize(
    ("item", "event", "expected"),
    [
        (Order(number=1), None, b'data: {"number":1,"remark":"\xc3\xa4\\nb"}\r\n\r\n'),
        (Order(number=1), "order", b'event: order\r\ndata: {"number":1,"remark":"\xc3\xa4\\nb"}\r\n\r\n'),
        (Order(number=1), kind, b'event: Order\r\ndata: {"number":1,"remark":"\xc3\xa4\\nb"}\r\n\r\n'),
        (Order(number=1), lambda _: None, b'data: {"number":1,"remark":"\xc3\xa4\\nb"}\r\n\r\n'),
        (Point(1, [Point(2)]), kind, b'event: Point\r\ndata: {"x":1,"inner":[{"x":2,"inner":[]}]}\r\n\r\n'),
        (Checked(3), None, b'data: {"y":3}\r\n\r\n'),
        (ServerSentEvent("x", event="own"), "order", b"event: own\r\ndata: x\r\n\r\n"),
        ({"data": "x"}, "order", b"data: x\r\n\r\n"),
        ("x", "order", b"data: x\r\n\r\n"),
        (b": x\n\n", "order", b": x\n\n"),
        (
            Point(1, [Point("\r\n€")]),
            "p\nq",
            'event: pq\r\ndata: {"x":1,"inner":[{"x":"\\r\\n€","inner":[]}]}\r\n\r\n'.encode(),
        ),
        (7, kind, b"data: 7\r\n\r\n"),
        (Point, kind, ensure_bytes(Point, "\r\n")),
        (Order, kind, ensure_bytes(Order, "\r\n")),
    ],
)
async def test_items(item: object, event: Any, expected: bytes) -> None:
    """A model becomes an event with its JSON and the name asked for; what is none, a class too, stays what it is."""
    assert wire(*model_events([item], event=event)) == [expected]
    assert wire(*[each async for each in model_events(later(item), event=event)]) == [expected]


async def test_fields_that_are_no_json() -> None:
    """A dataclass with a field that JSON does not know is an error, not a guess."""
    with pytest.raises(TypeError, match="JSON"):
        list(model_events([Point(1, (Order(number=1),))]))


@pytest.mark.parametrize("begun", [True, False])
async def test_closing_closes_the_source(begun: bool) -> None:
    """Closing reaches the source, though it was never begun."""
    source = Both()
    asynchronous: Any = model_events(source)
    synchronous: Any = model_events(OnlySync(source))
    if begun:
        assert (await anext(asynchronous), next(synchronous)) == ("a", "s")
    await asynchronous.aclose()
    synchronous.close()
    assert source.ended == ["async", "sync"]


async def test_nothing_to_close() -> None:
    """A source that cannot be closed is left alone."""
    synchronous: Any = model_events([1])
    synchronous.close()
    asynchronous: Any = model_events(Bare())
    await asynchronous.aclose()
    assert (next(synchronous), await anext(asynchronous)) == (1, "b")


# ---- event_stream


class Answer:
    status = 0

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]


async def get(app: ASGIApp, target: str) -> Answer:
    """What the application answers to a client that stays to the end."""
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    first, answer = iter([{"type": "http.request", "body": b"", "more_body": False}]), Answer()

    async def receive() -> Message:
        for message in first:
            return message
        await anyio.sleep_forever()
        raise AssertionError

    await app(scope, receive, answer.send)
    return answer


class Store:
    opened = 0


async def store() -> AsyncIterator[Store]:
    Store.opened += 1
    try:
        yield Store()
    finally:
        Store.opened -= 1


@event_stream
async def orders(
    customer: int,
    opened: Annotated[Store, Depends(store)],
    limit: Annotated[int, Query(le=3)] = 2,
) -> OnlyForTheTypeChecker[str, int]:
    """All orders of a customer."""
    for number in range(limit):
        yield Order(number=customer + number, note=str(opened.opened))


@event_stream(event=kind, sep="\n", headers={"x-kind": "blocking"})
def blocking(request: Request) -> Iterator[object]:
    yield Point(1)
    yield threading.current_thread() is threading.main_thread()
    yield request.url.path


class Pages:
    def __init__(self, title: str) -> None:
        self.title = title

    @event_stream
    async def page(self, request: OnlyForTheTypeChecker[str, Any]) -> AsyncIterator[str]:
        yield f"{self.title} {request.url.path}"  # type: ignore[attr-defined]


def fastapi() -> FastAPI:
    app = FastAPI()
    app.get("/orders/{customer}")(orders)
    app.get("/blocking")(blocking)
    return app


def starlette() -> Starlette:
    return Starlette(routes=[Route("/blocking", blocking), Route("/page", Pages("One").page)])


async def test_fastapi() -> None:
    """Path and query parameters, validation and dependencies are FastAPI's; what is yielded is streamed by us."""
    app = fastapi()
    response = await get(app, "/orders/40?limit=3")
    expected = [Order(number=40 + each, note="1") for each in range(3)]
    assert response.body == b"".join(wire(*model_events(expected)))
    assert response.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert response.headers[b"x-accel-buffering"] == b"no"
    assert Store.opened == 0
    assert (await get(app, "/orders/x")).status == 422
    assert (await get(app, "/orders/1?limit=9")).status == 422


async def test_fastapi_describes_it() -> None:
    """Name, description and parameters in the OpenAPI document are those of the function."""
    operation = fastapi().openapi()["paths"]["/orders/{customer}"]["get"]
    assert operation["description"] == "All orders of a customer."
    assert operation["summary"] == "Orders"
    assert [each["name"] for each in operation["parameters"]] == ["customer", "limit"]


@pytest.mark.parametrize("build", [fastapi, starlette])
async def test_a_synchronous_function(build: Callable[[], ASGIApp]) -> None:
    """A plain generator function runs in worker threads; options are the response's."""
    response = await get(build(), "/blocking")
    expected = (b'event: Point\ndata: {"x":1,"inner":[]}\n\n', b"data: False\n\n", b"data: /blocking\n\n")
    assert response.body == b"".join(expected)
    assert response.headers[b"x-kind"] == b"blocking"


async def test_a_method() -> None:
    """A method is an endpoint too, with annotations that only the type checker can resolve."""
    assert (await get(starlette(), "/page")).body == b"data: One /page\r\n\r\n"


async def test_looks_like_an_endpoint() -> None:
    """Nothing about the endpoint says generator; everything that can be resolved is, and it returns a response."""
    assert inspect.unwrap(orders) is orders
    assert inspect.iscoroutinefunction(orders)
    assert (orders.__name__, orders.__doc__) == ("orders", "All orders of a customer.")
    signature = inspect.signature(orders)
    assert signature.return_annotation is EventSourceResponse
    annotations = [each.annotation for each in signature.parameters.values()]
    assert annotations[:2] == [int, Annotated[Store, Depends(store)]]
    assert get_origin(annotations[2]) is Annotated
    assert inspect.signature(Pages("x").page).parameters["request"].annotation == "OnlyForTheTypeChecker[str, Any]"
    assert inspect.signature(Pages.page).parameters["self"].annotation is inspect.Parameter.empty


async def test_the_client_goes() -> None:
    """The function is cancelled where it waits, and cleans up, when the client leaves."""
    ended, waiting = anyio.Event(), anyio.Event()

    @event_stream
    async def forever() -> AsyncIterator[Order]:
        try:
            yield Order(number=1)
            waiting.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def receive() -> dict[str, str]:
        await waiting.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    with anyio.fail_after(5):
        response = await forever()
        await response({"type": "http", "method": "GET", "headers": []}, receive, send)
    assert ended.is_set()


async def test_only_generator_functions() -> None:
    """What is no generator function is an error when it is decorated; a partial of one is one."""

    async def response() -> EventSourceResponse:
        return EventSourceResponse([])

    def numbers(first: int, /) -> Iterator[int]:
        yield first

    for wrong in (response, "text", functools.partial(response)):
        with pytest.raises(TypeError, match="generator function"):
            event_stream(wrong)  # type: ignore[call-overload]
    endpoint = event_stream(functools.partial(numbers, 7))
    answer = await get(await endpoint(), "/")
    assert answer.body == b"data: 7\r\n\r\n"


@pytest.mark.parametrize("options", [{"pong": 3}, {"ping": -1}, {"sep": "x"}, {"content": []}])
async def test_options(options: dict[str, Any]) -> None:
    """Options that the response would not take are an error when the function is decorated."""
    with pytest.raises((TypeError, ValueError)):
        event_stream(**options)
