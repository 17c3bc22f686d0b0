"""`python -m streamgate.demo --port N` runs the demo upstream alone, until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import signal

from streamgate.demo.server import start


async def serve(host: str, port: int, play: str | None) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await start(host, port, play=play) as upstream:
        print(f"demo upstream on {upstream.url}", flush=True)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m streamgate.demo", description="A scripted OpenAI-style upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--play", metavar="NAME", help="play this, whatever model is asked for")
    asked = parser.parse_args()
    asyncio.run(serve(asked.host, asked.port, asked.play))


if __name__ == "__main__":
    main()
