"""Two servers in two threads of one process, each with an event loop of its own, and other threads that feed them.

    python examples/threads_and_loops.py 8000
    curl http://127.0.0.1:8000/neighbour            # where the other one listens
    curl -N http://127.0.0.1:8000/readings          # one sensor thread for the streams of both
    curl -N http://127.0.0.1:8000/steps             # a worker thread for this one stream

Ctrl-C or SIGTERM drains both: every stream of either loop is sent a farewell and a clean end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import os
import signal
import socket
import sys
import threading
import time

import anyio
import anyio.from_thread
import anyio.to_thread
import uvicorn
from anyio.streams.memory import MemoryObjectSendStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from streamgate.sse import Account, Broadcast, EventSourceResponse, ServerSentEvent

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two readings
FAREWELL = ServerSentEvent("the server is closing", event="bye")

# A broadcast may be used from any thread, and has subscribers on any loop: each is woken on its own.
broadcast = Broadcast(queue=16)


def measure(stop: threading.Event) -> None:
    """Like the thread of a device driver or a message-queue client: it blocks, and knows no event loop."""
    for number in itertools.count(1):
        broadcast.publish(ServerSentEvent(number, event="reading", id=number))
        if stop.wait(INTERVAL):
            return


def work(steps: MemoryObjectSendStream[str]) -> None:
    """A blocking library's thread. Memory streams, events and locks belong to their loop: it must be asked to use them.

    `from_thread.run` waits until the loop has done it, so a slow client slows the work down. When the client has left,
    the channel is broken, or the wait for room in it is cancelled: the work ends.
    """
    with contextlib.suppress(anyio.BrokenResourceError, concurrent.futures.CancelledError):
        for step in itertools.count(1):
            time.sleep(INTERVAL)  # noqa: TID251 - stands for blocking work; in this thread it may
            anyio.from_thread.run(steps.send, f"step {step}")


async def readings(_: Request) -> EventSourceResponse:
    return EventSourceResponse(broadcast.subscribe(), farewell=FAREWELL)


async def steps(_: Request) -> EventSourceResponse:
    send, receive = anyio.create_memory_object_stream[str](max_buffer_size=4)

    def close(_: Account) -> None:
        send.close()
        receive.close()

    worker = functools.partial(anyio.to_thread.run_sync, work, send)
    return EventSourceResponse(receive, data_sender_callable=worker, farewell=FAREWELL, on_close=close)


def server(neighbour: socket.socket) -> uvicorn.Server:
    async def where(_: Request) -> PlainTextResponse:
        return PlainTextResponse(f"http://127.0.0.1:{neighbour.getsockname()[1]}")

    routes = [Route("/readings", readings), Route("/steps", steps), Route("/neighbour", where)]
    return uvicorn.Server(uvicorn.Config(Starlette(routes=routes)))


def main(port: int) -> None:
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes them in the main thread only, and that is us
        signal.signal(signum, lambda *_: stop.set())
    with socket.create_server(("127.0.0.1", port)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        servers = {server(second): first, server(first): second}
        threads = [threading.Thread(target=each.run, args=([listener],)) for each, listener in servers.items()]
        threads.append(threading.Thread(target=measure, args=(stop,)))
        for thread in threads:
            thread.start()
        stop.wait()
        for each in servers:
            each.should_exit = True
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
