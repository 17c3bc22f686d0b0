"""What is measured, and how each is started: no gateway, nginx, streamgate."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 20.0  # seconds for a process to listen


@dataclass(frozen=True)
class Gateway:
    """Something that answers on a port; without a process it is the upstream itself."""

    name: str
    port: int
    process: subprocess.Popen[bytes] | None
    admin: int | None = None


NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn; worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  tcp_nodelay on; keepalive_timeout 75s; keepalive_requests 100000;
  upstream engines {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s; proxy_send_timeout 600s;
    }}
  }}
}}
"""


def nginx_path() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


def names() -> list[str]:
    """What can be measured on this machine."""
    return ["direct", *(["nginx"] if nginx_path() else []), "streamgate"]


@contextmanager
def upstream(folder: Path) -> Iterator[tuple[int, int]]:
    """The benchmark's upstream: its port and its process."""
    port = free_port()
    with running([sys.executable, str(HERE / "upstream.py"), str(port)], folder / "upstream.log", port) as process:
        yield port, process.pid


@contextmanager
def gateway(name: str, upstream_port: int, folder: Path) -> Iterator[Gateway]:
    """One gateway before the upstream, up and listening; stopped at the end."""
    if name == "direct":
        yield Gateway(name, upstream_port, None)
        return
    port, admin = free_port(), None
    if name == "nginx":
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream_port))
        command = [str(nginx_path()), "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]
    else:
        admin = free_port()
        command = [sys.executable, "-m", "streamgate", "serve", "--upstream", f"http://127.0.0.1:{upstream_port}"]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    with running(command, folder / f"{name}.log", port) as process:
        yield Gateway(name, port, process, admin)


@contextmanager
def running(command: list[str], log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on a port, its output in a file, terminated at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args} does not listen:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def scraped(admin: int | None) -> Iterator[None]:
    """Ask for /metrics each second, as a monitored gateway is asked (four to fifteen times as often)."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1.0):
            with closing(urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5)) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    if admin is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if admin is not None:
            thread.join()
