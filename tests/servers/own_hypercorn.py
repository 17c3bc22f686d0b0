"""hypercorn as a library, on asyncio or trio, with a shutdown trigger that ends the streams before the server waits.

`python -m own_hypercorn BACKEND PORT`
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

import anyio
from hypercorn.config import Config
from streams import app

from streamgate.sse import AppStatus


async def sigterm() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            AppStatus.should_exit = True
            return


async def main(backend: str, port: str) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    serve: Any = import_module(f"hypercorn.{backend}").serve
    await serve(app, config, shutdown_trigger=sigterm)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:], backend=sys.argv[1])
