"""The chart before the real gateway: its file is accepted, its command line serves and drains, its test streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import httpx
import pytest
from click.testing import CliRunner

from streamgate.cli import main
from tests.helm.chart import CHART, VALUES, flags, helm, kinds, one, pod, rendered, streamgate_yaml, with_values
from tests.served import served

SECRETS = {"ADMIN_TOKEN": "admin", "TEAM_A_KEY": "a-secret", "GPU_KEY": "g-secret"}
WITH_FILE = [case for case in VALUES if case != "existing"]
EVENT_AND_CLOSING = 6.0  # s: error events, closing, telemetry, logs; the least that drain.margin may be


@pytest.mark.parametrize("case", WITH_FILE)
def test_the_file_is_accepted(case, tmp_path):
    """`streamgate check` takes it, listening where the flags say, with the Secret's variables."""
    found = rendered(case)
    file, keys, mounted = tmp_path / "streamgate.yaml", tmp_path / "keys.yaml", tmp_path / "team-b"
    keys.write_text("[]")
    mounted.write_text("b-secret")
    text = streamgate_yaml(found)
    for path in (keys, mounted):  # what is mounted in the pod
        text = text.replace(f"/run/secrets/streamgate/{path.name}", str(path))
    file.write_text(text)
    environment = SECRETS | {
        "STREAMGATE_LISTEN": flags(found)["--listen"], "STREAMGATE_ADMIN__LISTEN": flags(found)["--admin"],
    }  # fmt: skip
    done = CliRunner().invoke(main, ["check", "--config", str(file)], env=environment)
    assert done.exit_code == 0, done.output


def started(tmp_path, *settings: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """The container's command line, on ports that are free here; the process and its line `ready`."""
    found = with_values(*settings)
    file = tmp_path / "streamgate.yaml"
    file.write_text(streamgate_yaml(found))
    here = {"--config": str(file), "--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0"}
    command = ["serve", *(f"{flag}={value}" for flag, value in (flags(found) | here).items())]
    process = subprocess.Popen([sys.executable, "-m", "streamgate", *command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, next(line for line in map(json.loads, process.stdout) if line["event"] == "ready")


def test_the_command_line_serves_and_ends_within_the_grace_period(tmp_path):
    """Probes answer where they are sent; after SIGTERM a stream that never ends is cut before SIGKILL would come."""
    settings = ("drain.timeout=1", "drain.lameduck=0", f"drain.margin={EVENT_AND_CLOSING:.0f}")
    grace = pod(with_values(*settings))["terminationGracePeriodSeconds"]
    probes = with_values(*settings)
    process, ready = started(tmp_path, *settings)
    try:
        spec = pod(probes)["containers"][0]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert httpx.get(ready["admin"] + spec[probe]["httpGet"]["path"]).status_code == 200
        body = {"model": "demo-stall3", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        with httpx.stream("POST", f"{ready['url']}/v1/chat/completions", json=body) as stream:
            arriving = stream.iter_bytes()
            assert b"data:" in next(arriving)
            process.terminate()
            began = time.monotonic()
            assert b"gateway_draining" in b"".join(arriving)
        assert process.wait(grace) == 3
        assert time.monotonic() - began < grace
    finally:
        process.kill()
        process.communicate()


def asked(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the pod of `helm test` runs."""
    command = one(rendered("defaults"), "Pod")["spec"]["containers"][0]
    assert command["command"] == ["python", "-c"]
    return subprocess.run(
        [sys.executable, "-c", *command["args"]], env=os.environ | {"URL": url, "TIMEOUT": "10"} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_helm_test_streams():
    """It is content with a whole stream, of the model it is told or of the first it finds, and with nothing else."""
    with served() as gateway:
        whole = asked(gateway.url, MODEL="demo-n5-t1")
        assert (whole.returncode, whole.stderr) == (0, "")
        assert whole.stdout.startswith("demo-n5-t1: ")
        assert asked(gateway.url).returncode == 0
        cut = asked(gateway.url, MODEL="demo-n5-t1-cleaneof3")
        assert cut.returncode == 1
        assert "truncated" in cut.stderr
        assert "404" in asked(gateway.url, MODEL="nobody").stderr


def test_helm_test_has_its_address_and_its_key():
    """The Service's own name and port; a key from a Secret."""
    pods = one(rendered("everything"), "Pod")["spec"]["containers"][0]["env"]
    environment = {each["name"]: each.get("value", each.get("valueFrom")) for each in pods}
    assert environment["URL"] == "http://gw-streamgate.llm.svc:80"
    assert environment["MODEL"] == "llama-70b"
    assert environment["KEY"] == {"secretKeyRef": {"name": "streamgate", "key": "TEAM_A_KEY"}}
    assert "key" not in {each["name"] for each in one(rendered("defaults"), "Pod")["spec"]["containers"][0]["env"]}


def notes(*arguments: object) -> str:
    done = helm("helm4", "install", "gw", CHART, "--dry-run=client", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:\n", 1)[1]


def test_the_notes_say_what_to_be_wary_of():
    """An open gateway, and a lame-duck time that is too short."""
    assert "the demo upstream answers, to everybody" in notes()
    wary = notes("--values", VALUES["keda"], "--set", "drain.lameduck=0")
    assert "whoever reaches the gateway may use it" in wary
    assert "drain.lameduck is below 5 s" in wary
    whole = notes("--values", VALUES["everything"], "--set", "secretVersion=")
    assert "https://llm.example.com" in whole
    assert "https://old.example.com" in whole
    assert "Kubernetes gives it 320 s" in whole
    assert "set secretVersion" in whole
    assert "WARNING" not in whole
    assert "Service" in kinds(rendered("everything"))
