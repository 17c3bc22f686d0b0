"""Models to events, and functions that yield them to endpoints. Knows pydantic only by what its models can do."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ParamSpec, overload

from streamgate.sse.response import EventSourceResponse

Parameters = ParamSpec("Parameters")
Endpoint = Callable[Parameters, Awaitable[EventSourceResponse]]
EventName = str | Callable[[Any], str | None] | None


@overload
def model_events(source: AsyncIterable[Any], *, event: EventName = None) -> AsyncIterator[Any]: ...
@overload
def model_events(source: Iterable[Any], *, event: EventName = None) -> Iterator[Any]: ...
def model_events(source: Any, *, event: EventName = None) -> Any:
    """The items of a source, each model as an event (a dict) with its JSON as data; other items as they are.

    A model is what has `model_dump_json()`, as pydantic's have (aliases and the rest are its own configuration), or a
    dataclass instance (its fields must be JSON; TypeError or ValueError if not). `event` is the events' name, or called
    with each model to give it: `event=lambda model: type(model).__name__`. Asynchronous sources give an asynchronous
    iterator, synchronous ones a synchronous one. Closing it, which a response does in any case, closes the source.
    """
    return AsyncModels(source, event) if isinstance(source, AsyncIterable) else Models(source, event)


def as_event(item: Any, event: EventName = None) -> Any:
    """The event of a model, as a dict, for that takes the response's line end; what is no model is given back."""
    dump = getattr(item, "model_dump_json", None)
    if isinstance(item, type) or (dump is None and not dataclasses.is_dataclass(item)):
        return item
    text = dump() if dump is not None else _json(dataclasses.asdict(item))
    name = event(item) if callable(event) else event
    return {"data": text} if name is None else {"event": name, "data": text}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class AsyncModels:
    """No generator: closing it before its first item closes the source too."""

    __slots__ = ("_event", "_items")

    def __init__(self, source: AsyncIterable[Any], event: EventName) -> None:
        self._items = aiter(source)
        self._event = event

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return as_event(await anext(self._items), self._event)

    async def aclose(self) -> None:
        aclose = getattr(self._items, "aclose", None)
        if aclose is not None:
            await aclose()


class Models:
    """The same for a synchronous source, which the response iterates in worker threads."""

    __slots__ = ("_event", "_items")

    def __init__(self, source: Iterable[Any], event: EventName) -> None:
        self._items = iter(source)
        self._event = event

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return as_event(next(self._items), self._event)

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()


@overload
def event_stream(endpoint: Callable[Parameters, Any], /) -> Endpoint[Parameters]: ...
@overload
def event_stream(
    *, event: EventName = None, **options: Any
) -> Callable[[Callable[Parameters, Any]], Endpoint[Parameters]]: ...
def event_stream(endpoint: Any = None, /, *, event: EventName = None, **options: Any) -> Any:
    """An endpoint of a generator function: `@event_stream`, or `@event_stream(event=..., **options)` with options of
    `EventSourceResponse`.

        @app.get("/orders/{customer}")              # FastAPI: parameters and dependencies work as without it
        @event_stream(ping=20)
        async def orders(customer: int, store: Annotated[Store, Depends(opened)]) -> AsyncIterator[Order]:
            async for order in store.orders(customer):
                yield order                         # a model, or anything that `EventSourceResponse` takes

    What is yielded goes through `model_events`. A synchronous generator function is run in worker threads. Under
    Starlette the function gets the request. TypeError or ValueError, at once, for what is no generator function and for
    options that `EventSourceResponse` would not take.
    """
    EventSourceResponse((), **options)
    if endpoint is None:
        return functools.partial(_respond_with, event=event, options=options)
    return _respond_with(endpoint, event, options)


def _respond_with(function: Callable[..., Any], event: EventName, options: dict[str, Any]) -> Callable[..., Any]:
    if not (inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)):
        raise TypeError(f"event_stream is for generator functions, and this is none: {function!r}")

    async def respond(*args: Any, **kwargs: Any) -> EventSourceResponse:
        return EventSourceResponse(model_events(function(*args, **kwargs), event=event), **options)

    functools.update_wrapper(respond, function)
    # FastAPI follows it to a generator function, and would stream by its own means what is a response.
    del respond.__wrapped__  # type: ignore[attr-defined]
    signature = _resolved_signature(function)
    respond.__signature__ = signature  # type: ignore[attr-defined]
    respond.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    return respond


def _resolved_signature(function: Callable[..., Any]) -> inspect.Signature:
    """With annotations that were strings evaluated where the function was defined: FastAPI would look for them here."""
    names = getattr(inspect.unwrap(function), "__globals__", {})
    signature = inspect.signature(function)
    parameters = [
        each if each.annotation is each.empty else each.replace(annotation=_resolved(each.annotation, names))
        for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=EventSourceResponse)


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    alone: Any = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(alone, names, include_extras=True)["it"]
    except (NameError, AttributeError, TypeError):  # imported for the type checker only: no one resolves it
        return annotation
