"""`streamgate top` as an operator runs it: against a gateway, a wrong address, and in a terminal."""

from __future__ import annotations

import contextlib
import http.server
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, served

PATIENCE = 30
COMMAND = [sys.executable, "-m", "streamgate", "top"]


@pytest.fixture
def gateway() -> Iterator[Served]:
    with served(play="demo-n100-t20-stall3") as running:
        yield running


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
        check=False,
    )


def test_once_prints_one_table(gateway):
    """The state, the heads, a row for each stream; code 0."""
    gateway.chat("llama-8b", "r-1")
    done = top("--admin", gateway.admin, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    head, upstreams, limits, empty, heads, row, *rest = done.stdout.splitlines()
    assert head.startswith("streamgate ") and "active 1" in head
    assert upstreams.startswith("upstreams: ") and limits == "limits: none"
    assert heads.startswith("PHASE") and empty == ""
    assert row.split()[0] == "streaming" and "llama-8b" in row
    assert rest in ([], [""])
    assert top("--admin", gateway.admin.removeprefix("http://"), "--once").returncode == 0


def test_without_a_terminal_it_prints_a_table_each_second_until_it_is_interrupted(gateway):
    """For pipes and logs: no cursor is moved; Ctrl-C is an end like any other."""
    with subprocess.Popen([*COMMAND, "--admin", gateway.admin], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        heads = 0
        while heads < 2:
            line = child.stdout.readline()
            assert "\x1b" not in line
            heads += line.startswith("streamgate ")
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 0


def test_a_reader_who_has_enough_ends_it_quietly(gateway):
    """As `streamgate top | head -1` does."""
    with subprocess.Popen(
        [*COMMAND, "--admin", gateway.admin], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert (child.wait(PATIENCE), child.stderr.read()) == (0, b"")


def test_in_a_terminal_it_draws_in_place(gateway):
    """On the alternate screen, which it leaves."""
    gateway.chat("llama-8b", "r-1")
    parent, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "30"}
    with subprocess.Popen([*COMMAND, "--admin", gateway.admin], stdout=terminal, env=environment) as child:
        os.close(terminal)
        drawn = b""
        while b"r-1" not in drawn:
            drawn += os.read(parent, 65536)
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a terminal says that the other side is closed
            while piece := os.read(parent, 65536):
                drawn += piece
        assert child.wait(PATIENCE) == 0
    os.close(parent)
    assert drawn.startswith(b"\x1b[?1049h") and b"\x1b[?1049l" in drawn


def test_without_rich_it_prints_also_in_a_terminal(gateway, tmp_path: Path):
    """The extra is not needed."""
    (tmp_path / "rich.py").write_text("raise ImportError('not installed')\n")
    parent, terminal = pty.openpty()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with subprocess.Popen([*COMMAND, "--admin", gateway.admin], stdout=terminal, env=environment) as child:
        os.close(terminal)
        printed = b""
        while b"PHASE" not in printed:
            printed += os.read(parent, 65536)
        child.kill()
    os.close(parent)
    assert b"\x1b" not in printed


def test_the_end_of_the_gateway_ends_it_with_code_1(gateway):
    """A feed that ends is told."""
    with subprocess.Popen(
        [*COMMAND, "--admin", gateway.admin], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline()
        gateway.process.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 1
        assert child.stderr.read().startswith("streamgate top: ")


def test_the_token_comes_as_it_is_or_as_a_reference(tmp_path: Path):
    """From the option, a file, a variable, or the variable by which the gateway has it."""
    file = tmp_path / "token"
    file.write_text("the-token\n")
    secret = {"STREAMGATE_ADMIN__TOKEN": "${THE_TOKEN}", "THE_TOKEN": "the-token"}
    with served("--admin", "0.0.0.0:0", play="demo", **secret) as gateway:
        admin = gateway.admin.replace("0.0.0.0", "127.0.0.1")
        refused = top("--admin", admin, "--once")
        assert refused.returncode == 1
        assert refused.stderr == (
            f"streamgate top: {admin} wants the admin token: --token, or STREAMGATE_ADMIN__TOKEN\n"
        )
        for token in ("the-token", f"file:{file}", "${THE_TOKEN}"):
            assert top("--admin", admin, "--once", "--token", token, THE_TOKEN="the-token").returncode == 0, token
        assert top("--admin", admin, "--once", **secret).returncode == 0
        assert top("--admin", admin, "--once", "--token", "wrong").returncode == 1


class Other(http.server.BaseHTTPRequestHandler):
    """Some server that is no gateway."""

    def do_GET(self) -> None:
        body = b"data: never ending " * 200_000 if self.headers["host"].startswith("localhost") else b"hello"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if len(body) > 5 else "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path):
    """Nobody there, something else there, no address, no token where one was named: code 1 and no traceback."""
    with socket.socket() as probe, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        probe.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            port = other.server_address[1]
            for arguments, said in [
                (["--admin", f"http://127.0.0.1:{probe.getsockname()[1]}"], "refused"),
                (["--admin", f"http://127.0.0.1:{port}"], "answered 200 (text/plain); is it the admin port"),
                (["--admin", f"http://localhost:{port}"], "does not send the gateway's events"),
                (["--admin", "ftp://127.0.0.1"], "expected http://HOST:PORT"),
                (["--admin", "http://127.0.0.1:port"], "expected http://HOST:PORT"),
                (["--token", f"file:{tmp_path / 'none'}"], "--token: No such file or directory"),
                (["--token", "${NOT_SET_ANYWHERE}"], "--token: NOT_SET_ANYWHERE is not set"),
            ]:
                done = top(*arguments, "--once")
                assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
        finally:
            other.shutdown()
            thread.join()
