"""The configuration: defaults, sources and their order, every kind of mistake, and secrets that never show."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from streamgate.control import schema
from streamgate.control.config import Address, Config, ConfigError, Key, RouteClocks, UpstreamKey, effective, load
from streamgate.control.problems import Problem, dotted
from streamgate.control.yaml_lines import MAX_BYTES

# The promise to operators: these keys, with these defaults.
DEFAULTS = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:9464, token: null}
edge: {head_timeout: 10, body_timeout: 30, keep_alive: 75, max_head: 32768, max_body: 33554432,
       max_connections: 0, max_connections_per_address: 0, trusted_proxies: []}
clocks: {connect: 5, first_token: 120, idle: 60, total: 0, answer: 600, stall: 10, send: 30, heartbeat: 15,
         early_commit: 10}
limits:
  {concurrent: 0, queue: 0, max_wait: 10, max_event: 1048576, requests_per_minute: 0, tokens_per_minute: 0,
   max_duration: 0, store: null, store_timeout: 0.25, store_down: open, lease_ttl: 30, shed: {lag: 0, memory: 0}}
retry: {attempts: 2, deadline: 180, budget: 0.2, budget_min_per_s: 5}
drain: {timeout: 120, lameduck: 0}
upstreams: []
routes: []
paths: []
forward_headers: []
cors: {origins: []}
keys: null
keys_file: null
jwt: null
tenants: []
priorities: [{name: interactive, weight: 9, reserved: 0}, {name: batch, weight: 1, reserved: 0}]
plugins: []
observe:
  log_format: json
  log_level: info
  tracing: {sample: 0.1, slow: 10.0, broken: true, trust_incoming: false, semconv: '1.41'}
  slo: {time_to_first_token: 2.0, time_per_output_token: 0.1, stream_duration: 0.0}
"""
FULL = """
upstreams:
  - {name: gpu-a, url: "http://10.0.0.5:8000/", auth: none, weight: 1}
  - {name: api, url: "https://api.example.com/v1", auth: {key: "${API_KEY}"}, verify: false, idle: 2, connect: 1}
routes:
  - {models: ["llama-*"], upstreams: [gpu-a], balance: least_streams, clocks: {first_token: 30}}
  - {models: ["gpt-4"], as: llama-70b, upstreams: [gpu-a, api], paths: [/v1/extra]}
keys: [{name: me, key: "${MY_KEY}"}]
forward_headers: [X-Tenant]
cors: {origins: ["https://chat.example.com", "*"]}
edge: {trusted_proxies: [10.0.0.0/8, "::1"]}
"""
SECRETS = {"API_KEY": "sk-upstream-secret", "MY_KEY": "client-secret"}


def written(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> Config:
    """The configuration in a file of this text."""
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    return load(file, environ or {}, flags)


def problems(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text, environ, **flags)
    return list(caught.value.problems)


def test_every_default_is_the_promised_one() -> None:
    """Nothing written gives exactly the documented keys and values."""
    assert yaml.safe_load(effective(load(None, {}, {}))) == yaml.safe_load(DEFAULTS)
    assert list(yaml.safe_load(effective(Config()))) == list(yaml.safe_load(DEFAULTS))


def test_the_defaults_written_out_are_the_defaults(tmp_path: Path) -> None:
    """The printed configuration is one that can be read again."""
    assert written(tmp_path, DEFAULTS) == Config()
    assert written(tmp_path, effective(Config())) == Config()
    assert written(tmp_path, "") == Config()


def test_a_full_file_means_what_it_says(tmp_path: Path) -> None:
    """Every key arrives, references are resolved, names are normalised."""
    config = written(tmp_path, FULL, SECRETS)
    first, second = config.upstreams
    assert (first.name, first.url, first.auth, first.weight, first.verify, first.idle) == (
        "gpu-a", "http://10.0.0.5:8000", "none", 1, True, 4.0,
    )  # fmt: skip
    assert isinstance(second.auth, UpstreamKey) and second.auth.key.get_secret_value() == "sk-upstream-secret"
    assert (second.verify, second.idle, second.connect) == (False, 2.0, 1.0)
    assert config.routes[0].clocks == RouteClocks(first_token=30.0)
    assert config.routes[1].as_ == "llama-70b" and config.routes[1].paths == ("/v1/extra",)
    assert config.keys != "none" and config.keys is not None
    assert [(key.name, key.digest) for key in config.keys] == [("me", sha256(b"client-secret").digest())]
    assert config.forward_headers == ("x-tenant",)
    assert config.edge.trusted_proxies == ("10.0.0.0/8", "::1")


def test_a_ca_file_that_exists_is_kept(tmp_path: Path) -> None:
    """The path stays text; whether it holds certificates is the dialler's to find."""
    (tmp_path / "ca.pem").write_text("")
    assert written(tmp_path, UP + f", ca_file: {tmp_path}/ca.pem}}]").upstreams[0].ca_file == f"{tmp_path}/ca.pem"


def test_a_routes_clocks_override_some(tmp_path: Path) -> None:
    """A route's clocks replace those it names; the rest stay."""
    config = written(tmp_path, FULL, SECRETS)
    clocks = config.clocks.overridden(config.routes[0].clocks)
    assert (clocks.first_token, clocks.idle) == (30.0, 60.0)
    assert config.clocks.first_token == 120.0


def test_nothing_can_be_changed() -> None:
    """A configuration is frozen: running streams keep what they started with."""
    with pytest.raises(ValidationError):
        Config().listen = Address("127.0.0.1:1")  # type: ignore[misc]


# ---------------------------------------------------------------- mistakes

UP = "upstreams: [{name: a, url: 'http://h:1'"
BAD: list[tuple[str, str, str]] = [
    # text of the file, key path, part of what was expected
    ("kyes: 1", "kyes", "does not exist"),
    ("1: 2", "1", "does not exist"),
    ("edge: {head_timeut: 1}", "edge.head_timeut", "does not exist"),
    ("edge:", "edge", "a map"),
    ("edge: 5", "edge", "a map"),
    ("listen: 8080", "listen", "text"),
    ("listen: localhost", "listen", "HOST:PORT"),
    ("listen: ':8080'", "listen", "0.0.0.0:8080"),
    ("listen: 127.0.0.1:70000", "listen", "0 to 65535"),
    ("listen: 127.0.0.1:80a", "listen", "HOST:PORT"),
    ("listen: '::1:80'", "listen", "HOST:PORT"),
    ("listen: '[::g]:80'", "listen", "IPv6"),
    ("listen: 'a b:80'", "listen", "host name"),
    ("admin: {listen: 127.0.0.1:8080}", "admin.listen", "another address"),
    ("listen: 127.0.0.1:9464", "admin.listen", "another address"),
    ("admin: {token: secret}", "admin.token", "a reference, not the secret"),
    ("clocks: {idle: '5'}", "clocks.idle", "a number"),
    ("clocks: {idle: true}", "clocks.idle", "a number"),
    ("clocks: {idle: -1}", "clocks.idle", "0 or more"),
    ("clocks: {idle: .nan}", "clocks.idle", "finite"),
    ("clocks: {idle: .inf}", "clocks.idle", "finite"),
    ("clocks: {idle: null}", "clocks.idle", "a number"),
    ("limits: {queue: 1.5}", "limits.queue", "a whole number"),
    ("limits: {max_event: 1}", "limits.max_event", "1024 or more"),
    ("retry: {attempts: 11}", "retry.attempts", "10 or less"),
    ("retry: {budget: 1.1}", "retry.budget", "1 or less"),
    ("upstreams: {name: a}", "upstreams", "a list"),
    ("upstreams: [a]", "upstreams[0]", "a map"),
    ("upstreams: [{}]", "upstreams[0].name", "no default"),
    (UP + "}, {name: a, url: 'http://h:2'}]", "upstreams[1].name", "no other upstream"),
    (UP.replace("name: a", "name: 'a b'") + "}]", "upstreams[0].name", "matches"),
    (UP + ", auth: mine}]", "upstreams[0].auth", "'none' or 'client'"),
    (UP + ", auth: 5}]", "upstreams[0].auth", "a map"),
    (UP + ", auth: {key: sk-123}}]", "upstreams[0].auth.key", "a reference, not the secret"),
    (UP + ", auth: {key: 5}}]", "upstreams[0].auth.key", "in quotes"),
    (UP + ", auth: {key: '${NOT_SET}'}}]", "upstreams[0].auth.key", "NOT_SET"),
    (UP + ", auth: {key: '${EMPTY}'}}]", "upstreams[0].auth.key", "EMPTY"),
    (UP + ", auth: {key: '${LINES}'}}]", "upstreams[0].auth.key", "printable"),
    (UP + ", auth: {key: 'file:/nowhere/key'}}]", "upstreams[0].auth.key", "readable"),
    (UP + ", auth: {key: 'file:/dev/zero'}}]", "upstreams[0].auth.key", "8192"),
    (UP + ", auth: {key: 'file:/dev/null'}}]", "upstreams[0].auth.key", "printable"),
    (UP + ", weight: 0}]", "upstreams[0].weight", "1 or more"),
    (UP + ", verify: 1}]", "upstreams[0].verify", "true or false"),
    (UP + ", ca_file: /nowhere.pem}]", "upstreams[0].ca_file", "file that exists"),
    (UP + ", auth: client}]\nkeys: [{name: k, key: '${SET}'}]", "upstreams[0].auth", "for the gateway alone"),
    ("routes: [{models: [a], upstreams: [b]}]", "routes[0].upstreams[0]", "there is none"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a, b]}]", "routes[0].upstreams[1]", "(a)"),
    (UP + "}]\nroutes: [{models: [x], upstreams: []}]", "routes[0].upstreams", "at least 1"),
    (UP + "}]\nroutes: [{models: ['x[a'], upstreams: [a]}]", "routes[0].models[0]", "pattern"),
    (UP + "}]\nroutes: [{models: ['x[]'], upstreams: [a]}]", "routes[0].models[0]", "pattern"),
    (UP + "}]\nroutes: [{models: [''], upstreams: [a]}]", "routes[0].models[0]", "not empty"),
    (UP + "}]\nroutes: [{models: [" + "x" * 257 + "], upstreams: [a]}]", "routes[0].models[0]", "256"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], as: 'y*'}]", "routes[0].as", "not a pattern"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], balance: best}]", "routes[0].balance", "round_robin"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], clocks: {idl: 1}}]", "routes[0].clocks.idl", "not exist"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], paths: [v1]}]", "routes[0].paths[0]", "begins with /"),
    ("paths: [v1/extra]", "paths[0]", "begins with /"),
    ("paths: ['/v1/a?b']", "paths[0]", "without query"),
    ("paths: [/livez]", "paths[0]", "gateway's own"),
    ("forward_headers: [Connection]", "forward_headers[0]", "hop-by-hop"),
    ("forward_headers: [proxy-anything]", "forward_headers[0]", "hop-by-hop"),
    ("forward_headers: [Authorization]", "forward_headers[0]", "credentials"),
    ("forward_headers: [x-goog-api-key]", "forward_headers[0]", "credentials"),
    ("forward_headers: [Host]", "forward_headers[0]", "gateway itself"),
    ("forward_headers: ['x y']", "forward_headers[0]", "name of a header"),
    ("cors: {origins: ['chat.example.com']}", "cors.origins[0]", "an origin"),
    ("cors: {origins: ['https://a.example/x']}", "cors.origins[0]", "without a path"),
    ("edge: {trusted_proxies: [ten]}", "edge.trusted_proxies[0]", "a network"),
    ("keys: open", "keys", "'none'"),
    ("keys: 5", "keys", "a list"),
    ("keys: []", "keys", "at least 1"),
    ("keys: [{name: k}]", "keys[0]", "either"),
    ("keys: [{name: k, key: literal}]", "keys[0].key", "a reference, not the secret"),
    ("keys: [{name: k, key: '${SET}'}, {name: l, key: '${SET}'}]", "keys", "a different key"),
    ("keys: [{name: k, key: '${SET}'}, {name: k, key: '${SET}2'}]", "keys[1].name", "no other key"),
    ("listen: 0.0.0.0:8080", "keys", "keys: none"),
    ("listen: '[::]:8080'", "keys", "keys: none"),
    ("listen: gate.example:8080\nkeys: null", "keys", "keys: none"),
    ("plugins: [x]", "plugins[0]", "a map"),
    ("plugins: {use: x}", "plugins", "a list"),
    ("plugins: [{}]", "plugins[0].use", "no default"),
    ("plugins: [{use: 5}]", "plugins[0].use", "text"),
    ("plugins: [{use: ''}]", "plugins[0].use", "not empty"),
    ("plugins: [{use: nowhere}]", "plugins[0].use", "no plugin 'nowhere' is installed"),
    ("plugins: [{use: nowhere, usage: 1}]", "plugins[0].usage", "not exist"),
    ("plugins: [{use: 'streamgate.hooks:Abort'}]", "plugins[0].use", "not a subclass"),
    ("plugins: [{use: 'streamgate.hooks:Plugin'}]", "plugins[0].use", "at least one hook"),
    ("plugins: [{use: x, name: A b}]", "plugins[0].name", "matches"),
    ("plugins: [{use: x, fail: ajar}]", "plugins[0].fail", "'open' or 'closed'"),
    ("plugins: [{use: x, budget: 0}]", "plugins[0].budget", "more than 0"),
    ("plugins: [{use: x, budget: 61}]", "plugins[0].budget", "60 or less"),
    ("plugins: [{use: x, routes: ['']}]", "plugins[0].routes[0]", "not empty"),
    ("plugins: [{use: x, settings: null}]", "plugins[0].settings", "a map"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], plugins: [y]}]", "routes[0].plugins[0]", "there is none"),
    (UP + "}]\nroutes: [{models: [x], upstreams: [a], plugins: y}]", "routes[0].plugins", "a list"),
    ("observe: {log_level: loud}", "observe.log_level", "'debug'"),
    ("observe: {tracing: {sample: 2}}", "observe.tracing.sample", "1 or less"),
    ("listen: a:1\nlisten: 127.0.0.1:1", "listen", "once"),
    ("clocks: {idle: 1, idle: 2}", "clocks.idle", "once"),
    ("- a", "", "a map of keys"),
    ("a: [", "", "valid YAML"),
    ("a: *b", "", "valid YAML"),
    ("a: !!python/object:os.system x", "", "valid YAML"),
    ("? [a]\n: b", "", "plain word"),
    ("a: &a [*a]", "", "less deeply nested"),
    ("a: " + "[" * 40 + "]" * 40, "", "less deeply nested"),
    ("a: \x01", "", "control characters"),
    ("a: 2026-99-99", "", "valid YAML"),
    ("#" * (MAX_BYTES + 1), "", "at most"),
]
BAD += [
    (f"upstreams: [{{name: a, url: '{url}'}}]", "upstreams[0].url", "a URL")
    for url in ("ftp://h:1", "http://", "h:1", "http://h:0", "http://h:x", "http://h:99999", "http://a b/")
]
BAD += [
    ("upstreams: [{name: a, url: 'http://me:pw@h:1'}]", "upstreams[0].url", "no user name"),
    ("upstreams: [{name: a, url: 'http://h:1/?a=b'}]", "upstreams[0].url", "without query"),
    ("upstreams: [{name: a, url: 'http://h:1/../b'}]", "upstreams[0].url", "without . or .."),
]


@pytest.mark.parametrize(("text", "key", "expected"), BAD, ids=[f"{i}-{case[1]}" for i, case in enumerate(BAD)])
def test_each_mistake_is_named(tmp_path: Path, text: str, key: str, expected: str) -> None:
    """A mistake is reported with its file, its key path, and what was expected."""
    environ = {"SET": "a-key", "EMPTY": "", "LINES": "a\r\nhost: b"}
    found = problems(tmp_path, text, environ)
    matching = [problem for problem in found if problem.key == key and expected in problem.expected]
    assert matching, found
    assert all(problem.source.endswith("gate.yaml") for problem in found)


def test_every_mistake_at_once_with_its_line(tmp_path: Path) -> None:
    """Field errors, errors between keys and YAML's own duplicates come in one report, each with its line."""
    text = (
        "listen: 0.0.0.0:8080\nclocks:\n  idle: -1\n  idle: -2\nkyes: 1\nupstreams:\n- {name: a, url: x}\n- {name: a}\n"
    )
    found = {(problem.key, problem.line) for problem in problems(tmp_path, text)}
    assert found == {
        ("keys", 1),
        ("clocks.idle", 4),
        ("kyes", 5),
        ("upstreams[0].url", 7),
        ("upstreams[1].url", 8),
        ("upstreams[1].name", 8),
    }


def test_a_list_with_one_wrong_item_is_not_also_too_short(tmp_path: Path) -> None:
    """One mistake is one line."""
    assert [problem.key for problem in problems(tmp_path, "keys: [{name: k}]")] == ["keys[0]"]


def test_an_empty_file_name_or_a_folder_is_said_so(tmp_path: Path) -> None:
    """A file that cannot be read is a problem like any other, reported beside the others."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"STREAMGATE_FOO": "1"}, {})
    assert [problem.key for problem in caught.value.problems] == ["", "foo"]
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"listen: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(file, {}, {})


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    """YAML's own way to say a thing once is allowed; what a merge brings in is no duplicate."""
    text = "upstreams:\n- &a {name: a, url: 'http://h:1', weight: 3}\n- {<<: *a, name: b}\n"
    config = written(tmp_path, text)
    assert [(up.name, up.weight) for up in config.upstreams] == [("a", 3), ("b", 3)]


def test_aliases_cannot_multiply(tmp_path: Path) -> None:
    """A file of ten lines that unfolds to a billion values is refused."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "fewer values" in problems(tmp_path, "\n".join(lines))[0].expected


# ---------------------------------------------------------------- loopback and keys


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.9.9.9:1", True),
        ("localhost:8080", True),
        ("[::1]:8080", True),
        ("0.0.0.0:8080", False),
        ("[::]:8080", False),
        ("10.0.0.1:8080", False),
        ("gate.example.com:8080", False),
    ],
)
def test_off_loopback_needs_a_choice(tmp_path: Path, listen: str, loopback: bool) -> None:
    """Without keys the gateway listens on loopback only, unless it is open on purpose or has a list of keys."""
    assert Address(listen).loopback is loopback
    if loopback:
        assert str(written(tmp_path, f"listen: '{listen}'").listen) == listen
    else:
        assert [p.key for p in problems(tmp_path, f"listen: '{listen}'")] == ["keys"]
    assert written(tmp_path, f"listen: '{listen}'\nkeys: none").keys == "none"
    assert written(tmp_path, f"listen: '{listen}'\nkeys: [{{name: k, key: '${{K}}'}}]", {"K": "v"}).keys


def test_an_address_knows_its_parts() -> None:
    """HOST:PORT is text and has a host without brackets and a port."""
    address = Address("[::1]:0")
    assert (address, address.host, address.port) == ("[::1]:0", "::1", 0)


def test_the_admin_port_may_be_reachable_without_a_token(tmp_path: Path) -> None:
    """Only probes and /metrics are served there then, so it is allowed."""
    assert written(tmp_path, "admin: {listen: 0.0.0.0:9464}").admin.token is None


# ---------------------------------------------------------------- sources


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each source covers the one before, key by key."""
    text = "listen: 127.0.0.1:1\ndrain: {timeout: 1, lameduck: 1}\nobserve: {log_level: error, log_format: console}\n"
    environ = {"STREAMGATE_LISTEN": "127.0.0.1:2", "STREAMGATE_DRAIN__TIMEOUT": "2"}
    config = written(tmp_path, text, environ, listen="127.0.0.1:3", admin=None, log_level="debug", log_format=None)
    assert config.listen == "127.0.0.1:3"
    assert (config.drain.timeout, config.drain.lameduck) == (2.0, 1.0)
    assert (config.observe.log_level, config.observe.log_format) == ("debug", "console")
    assert config.clocks == Config().clocks


def test_environment_values_are_yaml() -> None:
    """Numbers, lists and maps are written as in the file; the more specific variable wins."""
    environ = {
        "STREAMGATE_CLOCKS__IDLE": "7.5",
        "STREAMGATE_CLOCKS": "{idle: 1, total: 9}",
        "STREAMGATE_PATHS": "[/v1/a, /v1/b]",
        "STREAMGATE_UPSTREAMS": "[{name: a, url: 'http://h:1', auth: {key: '${K}'}}]",
        "STREAMGATE_KEYS": "none",
        "STREAMGATE_OBSERVE__TRACING__SAMPLE": "1",
        "K": "v",
        "STREAMGATEWAY": "not ours",
    }
    config = load(None, environ, {})
    assert (config.clocks.idle, config.clocks.total) == (7.5, 9.0)
    assert config.paths == ("/v1/a", "/v1/b")
    assert config.upstreams[0].name == "a"
    assert config.keys == "none"
    assert config.observe.tracing.sample == 1.0


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("STREAMGATE_FOO", "1", "foo", "does not exist"),
        ("STREAMGATE_CLOCKS__FOO", "1", "clocks.foo", "does not exist"),
        ("STREAMGATE_CLOCKS__IDLE", "soon", "clocks.idle", "a number"),
        ("STREAMGATE_CLOCKS__IDLE", " ", "clocks.idle", "unset the variable"),
        ("STREAMGATE_CLOCKS__", "1", "", "the name of a key"),
        ("STREAMGATE_", "1", "", "the name of a key"),
        ("STREAMGATE_PATHS", "[", "paths", "valid YAML"),
        ("STREAMGATE_CLOCKS", "{idle: 1, idle: 2}", "idle", "once"),
        ("STREAMGATE_LISTEN__PORT", "1", "listen", "text"),
        ("STREAMGATE_PORT", "8080", "port", "does not exist"),
        ("STREAMGATE_ADMIN__TOKEN", "secret-1", "admin.token", "a reference"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, key: str, expected: str) -> None:
    """A mistake in the environment is reported with the variable's name."""
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value}, {})
    (problem,) = caught.value.problems
    assert (problem.source, problem.key) == (name, key) and expected in problem.expected


def test_what_kubernetes_puts_there_is_not_ours() -> None:
    """A service called streamgate in the same namespace must not keep the gateway from starting."""
    environ = {
        "STREAMGATE_SERVICE_HOST": "10.0.0.1",
        "STREAMGATE_SERVICE_PORT": "80",
        "STREAMGATE_SERVICE_PORT_HTTP": "80",
        "STREAMGATE_PORT": "tcp://10.0.0.1:80",
        "STREAMGATE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "STREAMGATE_PORT_80_TCP_ADDR": "10.0.0.1",
        "STREAMGATE_ADMIN_SERVICE_HOST": "10.0.0.2",
        "STREAMGATE_ADMIN_PORT": "tcp://10.0.0.2:80",
    }
    assert load(None, environ, {}) == Config()


def test_a_wrong_flag_is_named() -> None:
    """A mistake on the command line is reported with the flag."""
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {"listen": "x", "upstream": ["nope"], "drain_timeout": -1.0})
    named = {(problem.source, problem.key) for problem in caught.value.problems}
    assert named == {("--listen", "listen"), ("--upstream", "upstreams[0].url"), ("--drain-timeout", "drain.timeout")}
    with pytest.raises(KeyError):
        load(None, {}, {"no_such_flag": 1})


def test_a_variable_over_a_files_value_takes_the_blame(tmp_path: Path) -> None:
    """What replaced a value is named, not what it replaced."""
    (problem,) = problems(tmp_path, "listen: 127.0.0.1:1", {"STREAMGATE_LISTEN__PORT": "1"})
    assert problem.source == "STREAMGATE_LISTEN__PORT"


def test_upstream_flags_replace_the_files_upstreams(tmp_path: Path) -> None:
    """They are named after host and port, each name once, and let the client's key pass while there are no keys."""
    urls = [
        "http://10.0.0.5:8000",
        "http://10.0.0.5:8000/v1",
        "https://api.example.com",
        "http://h_x",
        "http://[::1]:1",
    ]
    config = written(tmp_path, UP + "}]", upstream=tuple(urls))
    assert [(up.name, up.auth) for up in config.upstreams] == [
        ("10.0.0.5-8000", "client"),
        ("10.0.0.5-8000-2", "client"),
        ("api.example.com-443", "client"),
        ("h_x-80", "client"),
        ("1-1", "client"),
    ]
    keyed = written(tmp_path, "keys: [{name: k, key: '${K}'}]", {"K": "v"}, upstream=["http://h:1"])
    assert keyed.upstreams[0].auth == "none"
    assert written(tmp_path, UP + "}]", upstream=()).upstreams[0].name == "a"
    for url in ("http://[", "http://"):
        assert problems(tmp_path, "", upstream=[url])[0].key == "upstreams[0].url"


# ---------------------------------------------------------------- secrets


def test_references_are_resolved(tmp_path: Path) -> None:
    """A variable, also inside a text, and a file, its last line break left out, become the secret."""
    (tmp_path / "key").write_text("from-file\n")
    text = (
        f"admin: {{token: 'file:{tmp_path}/key'}}\n"
        "keys: [{name: a, key: 'pre-${A}-${B}'}, {name: b, key: 'file:" + str(tmp_path) + "/${NAME}'}]\n"
    )
    config = written(tmp_path, text, {"A": "1", "B": "2", "NAME": "key"})
    assert config.admin.token is not None and config.admin.token.get_secret_value() == "from-file"
    assert isinstance(config.keys, tuple)
    assert [key.key.get_secret_value() for key in config.keys if key.key] == ["pre-1-2", "from-file"]


def test_secrets_never_show(tmp_path: Path) -> None:
    """Neither the printed configuration, nor any repr, nor any dump to JSON holds a secret."""
    config = written(tmp_path, FULL + "admin: {token: '${API_KEY}'}", SECRETS)
    shown = [effective(config), repr(config), str(config), config.model_dump_json(), repr(config.model_dump())]
    for text in shown:
        assert "sk-upstream-secret" not in text and "client-secret" not in text
    assert effective(config).count("********") == 3


def test_errors_never_hold_a_secret(tmp_path: Path) -> None:
    """A secret at the wrong place, or written out, is not repeated by the report."""
    secret = "sk-do-not-show"
    texts = [
        f"admin: {{token: {secret}}}",
        f"keys: {secret}",
        f"keys: [{{name: k, key: {secret}}}]",
        f"listen: {secret}",
        f"forward_headers: ['x {secret}']",
        f"cors: {{origins: [{secret}]}}",
        f"upstreams: [{{name: '{secret} ', url: 'http://u:{secret}@h:1', auth: {secret}}}]",
        f"keys: [{{name: k, key: *{secret}}}]",
        f"keys: [{{name: k, key: !{secret} x}}]",
        f"observe: {{log_level: {secret}}}",
        "keys: [{name: a, key: '${S}'}, {name: b, key: '${S}'}]",
        "keys: [{name: a, key: '${S} x'}]",
    ]
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            written(tmp_path, text, {"S": secret})
        assert secret not in str(caught.value) + repr(caught.value.problems), text
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_models_made_in_code_hide_what_they_were_given() -> None:
    """pydantic's own error, when code and not a file made the mistake, shows no value either."""
    with pytest.raises(ValidationError) as caught:
        Key(name="k", key="sk-do-not-show")  # type: ignore[arg-type]
    assert "sk-do-not-show" not in str(caught.value)
    assert Key(name="k", key=SecretStr("x")).digest == sha256(b"x").digest()


# ---------------------------------------------------------------- documents


def test_the_documents_are_the_generated_ones(tmp_path: Path) -> None:
    """docs/configuration.md and the JSON schema are what `python -m streamgate.control.schema` writes."""
    docs = Path(schema.__file__).parents[2] / "docs"
    subprocess.run([sys.executable, "-m", "streamgate.control.schema", str(tmp_path)], check=True, timeout=30)
    for name in schema.written():
        assert (docs / name).read_text() == (tmp_path / name).read_text(), f"{name}: run the generator"


def test_the_page_describes_every_key() -> None:
    """No key is without a type and, outside the routes' clocks, without a meaning."""
    for line in schema.page().splitlines():
        if line.startswith("| `") and "null` |  |" not in line:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert all(cells), line


def test_paths_are_written_as_operators_write_them() -> None:
    """Keys with dots, places in lists in brackets; a problem leaves out what it does not know."""
    assert dotted(("upstreams", 0, "auth", "key")) == "upstreams[0].auth.key"
    assert str(Problem("gate.yaml", "", "expected UTF-8")) == "gate.yaml: expected UTF-8"
    assert str(Problem("gate.yaml", "a.b", "expected x", 3)) == "gate.yaml:3: a.b: expected x"
