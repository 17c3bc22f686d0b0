"""Names, signatures and attributes: whatever a team imports from sse-starlette is there, and is called the same way.

| rule | test |
| --- | --- |
| every public name of `sse_starlette`, `.sse`, `.event` | test_public_names, test_public_names_are_those_written_down |
| EventSourceResponse: 14 parameters, order, kinds, defaults; ours after them, by keyword | test_response_parameters |
| ServerSentEvent, JSONServerSentEvent, ensure_bytes, enable_compression | test_other_parameters |
| SendTimeoutError is a TimeoutError | test_send_timeout_error |
| class constants | test_class_constants |
| what is refused, with which exception | test_refused, test_refused_with_words, test_ping_interval_is_checked |
| attributes of a response, and which may be assigned | test_attributes, test_assignable |
| parameters by position | test_by_position |
| enable_compression | test_compression |
| AppStatus: attributes and static methods | test_app_status, test_app_status_instance, test_original_handler |
| ... from any thread | test_switch_from_a_thread |
| ServerSentEvent's attributes and subclasses | test_event_attributes, test_event_subclass |
| shutdown_event is an anyio.Event | test_shutdown_event_is_any_event |
"""

from __future__ import annotations

import inspect
import json
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest
import sse_starlette
import sse_starlette.event
import sse_starlette.sse
from starlette.background import BackgroundTask
from starlette.responses import Response

import streamgate.sse
import streamgate.sse.event

# What sse_starlette.sse imports for itself, and its logger.
NOT_ITS_OWN = {
    *("Any", "AsyncIterable", "Awaitable", "BackgroundTask", "Callable", "Coroutine", "Iterator", "Mapping", "Message"),
    *("MutableHeaders", "Optional", "Receive", "Response", "Scope", "Send", "Set", "Union", "anyio", "asyncio"),
    *("collapse_excgroups", "dataclass", "datetime", "field", "io", "iterate_in_threadpool", "json", "logger"),
    *("logging", "re", "signal", "threading", "timezone", "event", "sse", "Server"),
}


def public(module) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")} - NOT_ITS_OWN


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (sse_starlette, streamgate.sse),
        (sse_starlette.sse, streamgate.sse),
        (sse_starlette.event, streamgate.sse),
        (sse_starlette.event, streamgate.sse.event),
    ],
    ids=["sse_starlette", "sse_starlette.sse", "sse_starlette.event", "event"],
)
def test_public_names(theirs, ours):
    """Each public name of theirs is one of ours."""
    names = public(theirs)
    assert names >= {"ServerSentEvent"}
    assert [name for name in sorted(names) if not hasattr(ours, name)] == []


def test_public_names_are_those_written_down():
    """A release of sse-starlette with one name more shows here."""
    assert public(sse_starlette) | public(sse_starlette.sse) | public(sse_starlette.event) == {
        *("EventSourceResponse", "ServerSentEvent", "JSONServerSentEvent", "ensure_bytes", "AppStatus"),
        *("SendTimeoutError", "Content", "SyncContentStream", "AsyncContentStream", "ContentStream"),
    }


def shape(function) -> list[tuple[str, str, object]]:
    return [
        (each.name, each.kind.description, each.default)
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]


def test_response_parameters():
    """The fourteen come first, with their names, order, kinds and defaults; whatever is ours is keyword only."""
    theirs = shape(sse_starlette.EventSourceResponse.__init__)
    ours = shape(streamgate.sse.EventSourceResponse.__init__)
    assert len(theirs) == 14
    assert ours[:14] == theirs
    assert {kind for _, kind, _ in ours[14:]} == {"keyword-only"}
    assert all(default is not inspect.Parameter.empty for _, _, default in ours[14:])


def test_other_parameters(ours, theirs):
    """Events, ensure_bytes and enable_compression are called as theirs are."""
    assert shape(ours.ServerSentEvent.__init__) == shape(theirs.ServerSentEvent.__init__)
    assert shape(ours.ensure_bytes) == shape(theirs.ensure_bytes)
    compression = [shape(library.EventSourceResponse.enable_compression) for library in (ours, theirs)]
    assert compression[0] == compression[1]
    # Theirs takes (data, *args, **kwargs) and hands them on, so what may be given is what an event takes.
    assert shape(ours.JSONServerSentEvent.__init__) == shape(theirs.ServerSentEvent.__init__)
    for library in (ours, theirs):
        with pytest.raises(TypeError):
            library.JSONServerSentEvent("x", "y")
        with pytest.raises(TypeError):
            library.JSONServerSentEvent("x", unknown="y")
        assert issubclass(library.JSONServerSentEvent, library.ServerSentEvent)


def test_send_timeout_error(library):
    """It can be raised without arguments, and caught as a TimeoutError."""
    assert issubclass(library.SendTimeoutError, TimeoutError)
    assert isinstance(library.SendTimeoutError(), TimeoutError)


def test_class_constants(ours, theirs):
    """Defaults, by their names."""
    for name in ("DEFAULT_PING_INTERVAL", "DEFAULT_SEPARATOR", "DEFAULT_CLEANUP_TIMEOUT", "charset"):
        assert getattr(ours.EventSourceResponse, name) == getattr(theirs.EventSourceResponse, name)
    assert ours.ServerSentEvent.DEFAULT_SEPARATOR == theirs.ServerSentEvent.DEFAULT_SEPARATOR == "\r\n"
    for library in (ours, theirs):
        assert issubclass(library.EventSourceResponse, Response)


REFUSED = [
    {"ping": -1},
    {"ping": "1"},
    {"ping": 1j},
    {"ping": []},
    {"sep": ""},
    {"sep": "\n\n"},
    {"sep": " "},
    {"sep": "\u2028"},
    {"shutdown_grace_period": -0.1},
    {"shutdown_grace_period": "x"},
    {"shutdown_grace_period": None},
    {"cleanup_timeout": -1},
    {"cleanup_timeout": "x"},
    {"unknown": 1},
    {"headers": {"x": 1}},
    {"headers": {"x": "\u20ac"}},
    {"headers": 1},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_refused(ours, theirs, options):
    """What they refuse is refused, with the same kind of exception."""
    raised = []
    for library in (theirs, ours):
        with pytest.raises(Exception) as caught:
            library.EventSourceResponse([], **options)
        raised.append(caught.type)
    assert raised[0] is raised[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ping": -1}, "ping interval must be >= 0"),
        ({"ping": "1"}, "ping interval must be int"),
        ({"sep": ""}, "sep must be one of"),
        ({"shutdown_grace_period": -1}, "shutdown_grace_period must be >= 0"),
        ({"cleanup_timeout": -1}, "cleanup_timeout must be >= 0"),
    ],
)
def test_refused_with_words(library, options, words):
    """The words tests of applications look for."""
    with pytest.raises((TypeError, ValueError), match=words):
        library.EventSourceResponse([], **options)


def test_ping_interval_is_checked(library):
    """Also when it is assigned; what is refused is not kept."""
    response = library.EventSourceResponse(0)
    assert response.ping_interval == response.DEFAULT_PING_INTERVAL == 15
    for value in (25, 0.5, 0, True):
        response.ping_interval = value
        assert response.ping_interval is value
    for value, error in (("ten", TypeError), (None, TypeError), (-42, ValueError)):
        with pytest.raises(error):
            response.ping_interval = value
        assert response.ping_interval is True


ATTRIBUTES = (
    *("status_code", "background", "ping_interval", "sep", "ping_message_factory", "data_sender_callable"),
    *("send_timeout", "client_close_handler_callable", "active", "media_type", "raw_headers", "charset"),
)


async def nothing(*_):
    """A callback."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"status_code": 418, "headers": {"X-A": "b"}, "media_type": "text/plain"},
        {"ping": 3, "sep": "\r", "ping_message_factory": str, "send_timeout": 0.5},
        {"data_sender_callable": nothing, "client_close_handler_callable": nothing},
        {"background": BackgroundTask(nothing), "ping": 0, "sep": "\n", "cleanup_timeout": None},
        {"shutdown_grace_period": 2, "cleanup_timeout": 0},
    ],
    ids=" ".join,
)
def test_attributes(ours, theirs, options):
    """Attributes have the names and values theirs have."""
    first, second = (library.EventSourceResponse([], **options) for library in (theirs, ours))
    for name in ATTRIBUTES:
        assert getattr(second, name) == getattr(first, name), name
    assert hasattr(second, "body_iterator")
    assert first.headers == second.headers


def test_by_position(ours, theirs):
    """All fourteen may be given by position."""
    background = BackgroundTask(nothing)
    values = [[], 201, {"x": "y"}, "text/x", background, 7, "\n", str, nothing, 0.5, nothing, None, 2, 3.0]
    first, second = (library.EventSourceResponse(*values) for library in (theirs, ours))
    for name in ATTRIBUTES:
        assert getattr(second, name) == getattr(first, name), name
    for library in (ours, theirs):
        with pytest.raises(TypeError):
            library.EventSourceResponse(*values, "interval")


def test_assignable(library):
    """Attributes that applications and frameworks assign."""
    response = library.EventSourceResponse([])
    for name in (*ATTRIBUTES, "body_iterator", "anything_else"):
        if name != "ping_interval":
            setattr(response, name, value := object())
            assert getattr(response, name) is value
    assert weakref.ref(response)() is response


@pytest.mark.parametrize("force", [False, True])
def test_compression(library, force):
    """There is none."""
    with pytest.raises(NotImplementedError):
        library.EventSourceResponse([]).enable_compression(force)
    with pytest.raises(NotImplementedError):
        library.EventSourceResponse([]).enable_compression(force=force)


def test_app_status(library):
    """Class attributes and static methods, by their names."""
    status = library.AppStatus
    assert status.should_exit is False
    assert status.enable_automatic_graceful_drain is True
    assert hasattr(status, "original_handler")
    for name in ("handle_exit", "disable_automatic_graceful_drain", "enable_automatic_graceful_drain_mode"):
        assert isinstance(inspect.getattr_static(status, name), staticmethod)
    status.should_exit = True
    assert status.should_exit is True
    status.should_exit = False
    assert status.should_exit is False


def test_original_handler(library):
    """With uvicorn loaded it is what `Server.handle_exit` was: it takes the server, the signal and the frame."""
    handler = library.AppStatus.original_handler
    assert callable(handler)
    assert list(inspect.signature(handler).parameters) in (["self", "sig", "frame"], ["args", "kwargs"])


def test_app_status_instance(library):
    """An instance shows what the class has."""
    assert library.AppStatus().should_exit is False
    library.AppStatus.should_exit = True
    assert library.AppStatus().should_exit is True


def test_switch_from_a_thread(library):
    """It can be set and read where no loop runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(setattr, library.AppStatus, "should_exit", True).result()
        assert library.AppStatus.should_exit is True
        assert thread.submit(getattr, library.AppStatus, "should_exit").result() is True


def test_event_attributes(library):
    """What was given, assignable until it is encoded."""
    event = library.ServerSentEvent("d", event="e", id="i", retry=1, comment="c")
    assert (event.data, event.event, event.id, event.retry, event.comment) == ("d", "e", "i", 1, "c")
    event.data, event.event, event.id, event.retry, event.comment = "D", "E", "I", 2, "C"
    assert event.encode() == b": C\r\nid: I\r\nevent: E\r\ndata: D\r\nretry: 2\r\n\r\n"
    assert library.JSONServerSentEvent({"a": 1}).data == json.dumps({"a": 1}, separators=(",", ":"))


def test_event_subclass(library):
    """A subclass may have attributes, a line end and an encoding of its own; ensure_bytes uses it."""

    class Named(library.ServerSentEvent):
        DEFAULT_SEPARATOR = "\n"

        def __init__(self, data):
            super().__init__(data, event="named")
            self.extra = 1

    class Own(library.ServerSentEvent):
        def encode(self):
            return b"own"

    assert Named("x").encode() == library.ensure_bytes(Named("x"), "\r") == b"event: named\ndata: x\n\n"
    assert library.ensure_bytes(Own(), "\r") == b"own"


def test_shutdown_event_is_any_event(library):
    """It is an anyio.Event that may be made before a loop runs, and is not set by construction."""
    event = anyio.Event()
    library.EventSourceResponse([], shutdown_event=event, shutdown_grace_period=1)
    assert not event.is_set()
