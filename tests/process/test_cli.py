"""The command line as an operator uses it: real processes, exit codes, what is printed where."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from streamgate import __version__

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGATE_")}
PATIENCE = 30


def streamgate(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "streamgate", *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**ENVIRON, **environ},
        check=False,
    )


def test_version_and_help() -> None:
    """The version is the package's; help names every command and option there is, and nothing of later."""
    assert streamgate("--version").stdout.strip() == f"streamgate, version {__version__}"
    top = streamgate("--help").stdout
    assert all(command in top.split() for command in ("serve", "check", "plugins", "demo", "key", "top"))
    options = streamgate("serve", "--help").stdout
    named = "config upstream listen admin fd drain-timeout lameduck log-format log-level"
    assert all(f"--{option}" in options for option in named.split())
    assert "--workers" not in options


def test_what_is_not_needed_is_not_imported() -> None:
    """Help answers at once, and `import streamgate` costs nothing."""
    heavy = "('pydantic', 'yaml', 'starlette', 'uvicorn', 'prometheus_client', 'structlog')"
    for module in ("streamgate", "streamgate.cli"):
        code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in {heavy}))"
        assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False).returncode == 0


def test_check_prints_what_is_in_force(tmp_path: Path) -> None:
    """A good configuration is printed whole, with secrets hidden, and the code is 0."""
    file = tmp_path / "gate.yaml"
    file.write_text("keys: [{name: me, key: '${MY_KEY}'}]\nclocks: {idle: 7}\n")
    done = streamgate("check", "--config", str(file), MY_KEY="my-secret", STREAMGATE_CLOCKS__TOTAL="9")
    assert (done.returncode, done.stderr) == (0, "")
    printed = yaml.safe_load(done.stdout)
    assert (printed["clocks"]["idle"], printed["clocks"]["total"]) == (7.0, 9.0)
    assert printed["keys"] == [{"name": "me", "key": "********"}] and "my-secret" not in done.stdout
    assert streamgate("check").returncode == 0


@pytest.mark.parametrize("command", ["check", "serve"])
def test_every_mistake_is_printed_and_the_code_is_2(command: str, tmp_path: Path) -> None:
    """A wrong configuration ends with code 2: a line for each mistake on stderr, nothing on stdout, no secret."""
    file = tmp_path / "gate.yaml"
    file.write_text("listen: 0.0.0.0:1\nkyes: 1\nadmin: {token: my-secret}\n")
    done = streamgate(command, "--config", str(file), STREAMGATE_CLOCKS__IDLE="soon")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("streamgate: ") for line in lines)
    assert f"streamgate: {file}:2: kyes: expected a known key" in done.stderr
    assert "STREAMGATE_CLOCKS__IDLE: clocks.idle: expected a number" in done.stderr
    assert "my-secret" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("serve", "--workers", "2"),
        ("serve", "--fd", "1"),
        ("serve", "--log-level", "loud"),
        ("serve", "--drain-timeout", "soon"),
        ("serve", "--drain-timeout", "-1"),
        ("serve", "--upstream", "nowhere"),
        ("serve", "--listen", "8080"),
        ("check", "--config", "/nowhere.yaml"),
        ("plugins", "--config", "/nowhere.yaml"),
        ("key",),
        ("key", "new", "--name", "two words"),
    ],
)
def test_wrong_use_is_code_2(arguments: tuple[str, ...]) -> None:
    """What the command line or the configuration cannot mean is wrong use."""
    done = streamgate(*arguments)
    assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr


def test_key_new_prints_a_key_once_and_lines_for_the_configuration(tmp_path: Path) -> None:
    """The first line is the key, the rest is YAML that holds its digest alone and is taken as it is."""
    done = streamgate("key", "new", "--name", "team-a")
    assert (done.returncode, done.stderr) == (0, "")
    key, _, lines = done.stdout.partition("\n")
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert re.fullmatch(r"sg-[A-Za-z0-9_-]{43}", key) and key not in lines
    assert yaml.safe_load(lines) == {"keys": [{"name": "team-a", "sha256": digest}]}
    (tmp_path / "gate.yaml").write_text(lines)
    assert streamgate("check", "--config", str(tmp_path / "gate.yaml")).returncode == 0
    assert streamgate("key", "hash", stdin=f"{key}\n").stdout == f"{digest}\n"
    unnamed = streamgate("key", "new").stdout
    (entry,) = yaml.safe_load(unnamed.partition("\n")[2])["keys"]
    assert entry["name"] == f"key-{entry['sha256'][:8]}" and unnamed.partition("\n")[0] != key


@pytest.mark.parametrize("given", ["", "\n", "two words\n", "schl\u00fcssel\n"])
def test_key_hash_takes_one_key(given: str) -> None:
    """What cannot be a header's key is wrong use, and is not repeated."""
    done = streamgate("key", "hash", stdin=given)
    assert (done.returncode, done.stdout) == (2, "") and "two words" not in done.stderr


def test_serve_serves_until_it_is_told() -> None:
    """Flags reach the gateway; it says where it listens, answers, and SIGTERM ends it with code 0."""
    flags = "--listen 127.0.0.1:0 --admin 127.0.0.1:0 --drain-timeout 5 --lameduck 0 --log-format json --log-level info"
    command = [sys.executable, "-m", "streamgate", "serve", *flags.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRON) as child:
        try:
            assert child.stdout is not None
            ready = next(line for line in map(json.loads, child.stdout) if line.get("event") == "ready")
            with urllib.request.urlopen(f"{ready['url']}/readyz", timeout=PATIENCE) as answer:
                assert answer.status == 200
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=PATIENCE)
            assert child.returncode == 0
        finally:
            child.kill()


def test_an_address_that_is_taken_is_code_1() -> None:
    """What only shows when serving begins is a failure, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = streamgate("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--admin", "127.0.0.1:0")
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_demo_shows_the_main_job() -> None:
    """Text streams, what was measured follows, the code is 0."""
    done = streamgate("demo")
    assert done.returncode == 0, done.stderr
    assert "A river keeps no record of the rain that made it." in done.stdout
    assert "first token after" in done.stdout
    assert 'outcome="completed"' in done.stdout
