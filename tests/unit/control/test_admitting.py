"""The configuration of admission: who may ask, how much, in what order; every mistake in it; what is printed of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamgate.control.admitting import Limits
from streamgate.control.checks import check
from streamgate.control.config import Config, ConfigError, effective, load
from streamgate.control.problems import Problem

A, B = "a" * 64, "b" * 64
ENV = {"KEY": "sk-one", "SAME": "sk-one", "PASSWORD": "p@ss/w#rd", "URL": "rediss://me:whole-secret@r.test:6380/2"}


def written(tmp_path: Path, text: str, **flags: Any) -> Config:
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    return load(file, ENV, flags)


def problems(tmp_path: Path, text: str, **flags: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text, **flags)
    return list(caught.value.problems)


FULL = f"""
keys:
  - {{name: one, key: "${{KEY}}"}}
  - name: two
    sha256: "{A.upper()}"
    tenant: Acme Inc.
    models: ["llama-*", gpt-4]
    priority: batch
    expires: 2027-01-31T12:00:00+02:00
    limits: {{concurrent: 3, requests_per_minute: 60, tokens_per_minute: 9000, max_body: 1000, max_duration: 60}}
tenants: [{{name: Acme Inc., limits: {{concurrent: 5}}}}]
priorities: [{{name: chat, weight: 3, reserved: 0.5}}, {{name: batch, reserved: 0.5}}]
limits: {{requests_per_minute: 600, store: "redis://u:${{PASSWORD}}@r.test/1?db=2", shed: {{lag: 0.5, memory: 1000}}}}
upstreams: [{{name: up, url: "http://u.test", limits: {{concurrent: 8}}}}]
routes: [{{models: ["*"], upstreams: [up], limits: {{tokens_per_minute: 7}}}}]
"""


def test_everything_arrives(tmp_path: Path) -> None:
    """Each key of each part, in its final form."""
    config = written(tmp_path, FULL)
    assert isinstance(config.keys, tuple)
    one, two = config.keys
    assert (one.digest, one.tenant, one.models, one.expires) == (sha256(b"sk-one").digest(), None, (), None)
    assert (two.digest.hex(), two.tenant, two.models, two.priority) == (A, "Acme Inc.", ("llama-*", "gpt-4"), "batch")
    assert two.expires == datetime(2027, 1, 31, 10, tzinfo=UTC)
    assert (two.limits.concurrent, two.limits.max_duration) == (3, 60.0)
    assert config.tenants[0].limits.concurrent == 5
    assert [(each.name, each.weight, each.reserved) for each in config.priorities] == [
        ("chat", 3.0, 0.5),
        ("batch", 1.0, 0.5),
    ]
    assert (config.limits.shed.lag, config.limits.shed.memory, config.limits.requests_per_minute) == (0.5, 1000, 600)
    assert (config.upstreams[0].limits.concurrent, config.routes[0].limits.tokens_per_minute) == (8, 7)
    assert config.authenticates and not Config().authenticates and not Config(keys="none").authenticates


def test_what_is_printed_is_what_was_written(tmp_path: Path) -> None:
    """Without what is absent, and without secrets: of a store's URL, the password."""
    config = written(tmp_path, FULL)
    printed = yaml.safe_load(effective(config))
    assert printed["keys"][0] == {"name": "one", "key": "********"}
    assert printed["keys"][1]["sha256"] == A.upper() and printed["keys"][1]["expires"] == "2027-01-31T10:00:00Z"
    assert printed["keys"][1]["limits"]["max_body"] == 1000
    assert printed["tenants"] == [{"name": "Acme Inc.", "limits": {"concurrent": 5}}]
    assert printed["limits"]["store"] == "redis://u:********@r.test/1?db=2"
    shown = effective(config) + repr(config) + str(config) + config.model_dump_json() + repr(config.model_dump())
    assert not [secret for secret in (*ENV.values(), "p%40ss", "whole-secret") if secret in shown]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("'2027-01-31'", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31 12:00:00 -05:00", datetime(2027, 1, 31, 17, tzinfo=UTC)),
        ("'2027-01-31T12:00:00+05:30'", datetime(2027, 1, 31, 6, 30, tzinfo=UTC)),
    ],
)
def test_when_a_key_ends(tmp_path: Path, text: str, moment: datetime) -> None:
    """A date is its first moment in UTC; a time has its zone."""
    config = written(tmp_path, f'keys: [{{name: a, sha256: "{A}", expires: {text}}}]')
    assert isinstance(config.keys, tuple) and config.keys[0].expires == moment
    assert written(tmp_path, effective(config)) == config


@pytest.mark.parametrize(
    ("url", "value", "shown"),
    [
        ("redis://r.test", "redis://r.test", "redis://r.test"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://user@r.test", "redis://user@r.test", "redis://user@r.test"),
        ("redis://:${PASSWORD}@r.test", "redis://:p%40ss%2Fw%23rd@r.test", "redis://:********@r.test"),
        ("${URL}", ENV["URL"], "rediss://me:********@r.test:6380/2"),
        ("file:{path}", "redis://:filed@r.test", "redis://:********@r.test"),
    ],
)
def test_a_stores_url(tmp_path: Path, url: str, value: str, shown: str) -> None:
    """Its password is a reference, percent-encoded where it stands inside the URL; it is never shown."""
    (tmp_path / "url").write_text("redis://:filed@r.test\n")
    config = written(tmp_path, f"limits: {{store: '{url.replace('{path}', str(tmp_path / 'url'))}'}}")
    assert config.limits.store is not None and config.limits.store.get_secret_value() == value
    assert yaml.safe_load(effective(config))["limits"]["store"] == shown
    assert Limits(store=config.limits.store) == config.limits


KEY = f'keys: [{{name: a, sha256: "{A}", '
JWT = "jwt: {issuer: i, audience: a, jwks: 'https://i.test/jwks'"
BAD = [
    ("keys: [{name: a}]", "keys[0]", "either"),
    (f'keys: [{{name: a, key: "${{KEY}}", sha256: "{A}"}}]', "keys[0]", "either"),
    ("keys: [{name: a, sha256: 'sk-written-out'}]", "keys[0].sha256", "matches"),
    (f'keys: [{{name: a, sha256: "{A}"}}, {{name: b, sha256: "{A}"}}]', "keys", "a different key"),
    ('keys: [{name: a, key: "${KEY}"}, {name: b, key: "${SAME}"}]', "keys", "a different key"),
    (
        f'keys: [{{name: a, key: "${{KEY}}"}}, {{name: b, sha256: "{sha256(b"sk-one").hexdigest()}"}}]',
        "keys",
        "a different key",
    ),
    (KEY + "tenant: ' x'}]", "keys[0].tenant", "printable"),
    (KEY + 'tenant: "a\\nb"}]', "keys[0].tenant", "printable"),
    (KEY + "models: [a, 'b[']}]", "keys[0].models[1]", "a pattern"),
    (KEY + "priority: fast}]", "keys[0].priority", "batch, interactive"),
    (KEY + "expires: 2027-01-31T12:00:00}]", "keys[0].expires", "a zone"),
    (KEY + "expires: 'tomorrow'}]", "keys[0].expires", "a date or a time"),
    (KEY + "expires: 2027}]", "keys[0].expires", "a date or a time"),
    (KEY + "limits: {concurrent: -1}}]", "keys[0].limits.concurrent", "0 or more"),
    (KEY + "limits: {queue: 1}}]", "keys[0].limits.queue", "does not exist"),
    (KEY + "priority: batch}]\npriorities: [{name: chat}]", "keys[0].priority", "(chat)"),
    ("priorities: []", "priorities", "at least 1"),
    ("priorities: [{name: a}, {name: a}]", "priorities[1].name", "no other priority"),
    ("priorities: [{name: a, weight: 0}]", "priorities[0].weight", "more than 0"),
    ("priorities: [{name: a, reserved: 0.6}, {name: b, reserved: 0.5}]", "priorities", "1 in all"),
    ("tenants: [{name: a, limits: {}}, {name: a, limits: {}}]", "tenants[1].name", "no other tenant"),
    ("limits: {store: 7}", "limits.store", "a URL"),
    ("limits: {store: 'http://r.test'}", "limits.store", "a URL"),
    ("limits: {store: 'redis://'}", "limits.store", "a URL"),
    ("limits: {store: 'redis://r:0'}", "limits.store", "a URL"),
    ("limits: {store: 'redis://[r'}", "limits.store", "a URL"),
    ("limits: {store: 'redis://r:x'}", "limits.store", "a URL"),
    ("limits: {store: 'redis://:sk-written-out@r.test'}", "limits.store", "as a reference"),
    ("limits: {store: 'redis://r.test?password=sk-written-out'}", "limits.store", "before the host"),
    ("limits: {store: 'redis://:${NOT_SET}@r.test'}", "limits.store", "NOT_SET"),
    ("limits: {store_down: maybe}", "limits.store_down", "'open'"),
    ("limits: {store_timeout: 0}", "limits.store_timeout", "more than 0"),
    (JWT + "}\nkeys: none", "jwt", "no `jwt` beside"),
    ("keys_file: /dev/null\nkeys: none", "keys_file", "no `keys_file` beside"),
    (JWT + "}\nupstreams: [{name: u, url: 'http://u', auth: client}]", "upstreams[0].auth", "for the gateway alone"),
    (JWT.replace("https://i.test/jwks", "/nowhere") + "}", "jwt.jwks", "a file that exists"),
    (JWT.replace("https://i.test", "https://u:p@i.test") + "}", "jwt.jwks", "no user name"),
    (JWT + ", algorithms: [HS256]}", "jwt.algorithms[0]", "'RS256'"),
    (JWT + ", algorithms: []}", "jwt.algorithms", "at least 1"),
    ("jwt: {issuer: i}", "jwt.jwks", "no default"),
]


@pytest.mark.parametrize(("text", "key", "expected"), BAD, ids=[f"{i}-{case[1]}" for i, case in enumerate(BAD)])
def test_each_mistake_is_named(tmp_path: Path, text: str, key: str, expected: str) -> None:
    """With its key path and what was expected there, and never with what was written."""
    found = problems(tmp_path, text)
    assert [problem for problem in found if problem.key == key and expected in problem.expected], found
    assert not re.search(r"sk-one|written-out", str(found))


def test_tokens_and_stores_need_their_packages() -> None:
    """An extra that is not installed is a mistake of the configuration, which says how to mend it."""
    tree = {"jwt": {}, "limits": {"store": "redis://r"}}
    found = {finding.path: finding.expected for finding in check(tree, lambda _: False)}
    assert "streamgate[jwt]" in found["jwt",] and "streamgate[redis]" in found["limits", "store"]
    assert not list(check(tree, lambda _: True))
    assert [finding.path for finding in check(tree, lambda module: module != "cryptography")] == [("jwt",)]


@pytest.mark.parametrize("text", [JWT + "}", "keys_file: '{path}'", f'keys: [{{name: a, sha256: "{A}"}}]'])
def test_each_way_to_ask_for_keys_opens_the_port(tmp_path: Path, text: str) -> None:
    """Off loopback one of them is needed; with any of them an SDK's key is not for upstreams."""
    (tmp_path / "keys.yaml").write_text("[]")
    text = text.replace("{path}", str(tmp_path / "keys.yaml"))
    config = written(tmp_path, f"listen: 0.0.0.0:8080\n{text}", upstream=["http://u.test"])
    assert config.authenticates and config.upstreams[0].auth == "none"


# ---------------------------------------------------------------- the keys file


def filed(tmp_path: Path, text: str | bytes, before: str = "") -> Config:
    file = tmp_path / "keys.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return written(tmp_path, f"keys_file: {file}\n{before}")


def test_a_keys_file_is_checked_at_the_start(tmp_path: Path) -> None:
    """As if its keys stood in the configuration; an empty list is a list."""
    assert filed(tmp_path, f'- {{name: a, sha256: "{A}"}}\n- {{name: b, key: "${{KEY}}", priority: batch}}\n').keys_file
    assert filed(tmp_path, "[]").authenticates


BAD_FILES = [
    ("", "", 1, "a list of keys"),
    ("keys: []", "", 1, "a list of keys"),
    (b"\xff", "", None, "UTF-8"),
    ("- {name: a", "", 1, "valid YAML"),
    ("[" * 2000, "", None, "nested"),
    ("\n- {name: a}", "keys[0]", 2, "either"),
    (f'- {{name: a, sha256: "{A}"}}\n- {{name: a, sha256: "{B}"}}', "keys[1].name", 2, "no other key"),
    (f'- {{name: one, sha256: "{B}"}}', "keys[0].name", 1, "no other key"),
    (f'- {{name: a, sha256: "{sha256(b"sk-one").hexdigest()}"}}', "keys[0]", 1, "not in the configuration"),
    (f'- {{name: a, sha256: "{A}"}}\n- {{name: b, sha256: "{A}"}}', "keys", 1, "a different key"),
    (f'- {{name: a, sha256: "{A}", priority: fast}}', "keys[0].priority", 1, "batch, interactive"),
    (f'- {{name: a, sha256: "{A}", nmae: b}}', "keys[0].nmae", 1, "does not exist"),
    (f'- {{name: a, sha256: "{A}", sha256: "{B}"}}', "[0].sha256", 1, "once"),
]


@pytest.mark.parametrize(("text", "key", "line", "expected"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_each_mistake_of_a_keys_file_is_named(
    tmp_path: Path, text: str | bytes, key: str, line: int | None, expected: str
) -> None:
    """With the file, the line, and what was expected there."""
    with pytest.raises(ConfigError) as caught:
        filed(tmp_path, text, 'keys: [{name: one, key: "${KEY}"}]')
    (problem,) = caught.value.problems
    assert problem.source.endswith("keys.yaml") and (problem.key, problem.line) == (key, line), problem
    assert expected in problem.expected


def test_a_keys_file_that_is_not_there(tmp_path: Path) -> None:
    """The gateway does not begin without the keys it is to have."""
    (problem,) = problems(tmp_path, f"keys_file: {tmp_path}/none.yaml")
    assert problem.source == f"{tmp_path}/none.yaml" and "can be read" in problem.expected
