"""The admin port's application: who may reach what, and what is answered."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest
import structlog
from structlog.testing import CapturingLogger

from streamgate.control.admin import admin_app, bears, from_here, is_local
from streamgate.control.health import Health
from streamgate.drain import Drain
from streamgate.errors import Reason, Refusal
from streamgate.observe import Observer
from streamgate.observe.exposition import Exposition

TOKEN = "a-token-of-the-operators"


def basic(password: str) -> str:
    """What a browser sends for a password that it was given."""
    return base64.b64encode(f"anybody:{password}".encode()).decode()


PUBLIC = ["/metrics", "/livez", "/readyz"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """The drain's line goes nowhere."""
    structlog.configure(logger_factory=lambda *_: CapturingLogger())
    yield
    structlog.reset_defaults()


class Admin:
    """An admin application and what it was built from."""

    def __init__(self, *, token: str | None = None, loopback: bool = True) -> None:
        self.observer = Observer(log=CapturingLogger())
        self.drain = Drain()
        self.health = Health(self.drain, started=True)
        self.app = app = admin_app(
            observer=self.observer,
            drain=self.drain,
            metrics=Exposition(self.observer),
            health=self.health,
            token=token,
            loopback=loopback,
            on_drain=self.drain.begin,
            statistics=lambda: {"slots": 3},
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:9464")

    async def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        return await self.client.request(method, path, headers=headers)


@pytest.fixture
def admin() -> Callable[..., Admin]:
    return Admin


@pytest.mark.anyio
async def test_metrics_come_as_text_or_openmetrics(admin):
    """The scraper chooses by Accept."""
    port = admin()
    text = await port.ask("GET", "/metrics")
    openmetrics = await port.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "streamgate_build_info{" in text.text
    assert openmetrics.text.endswith("# EOF\n")


@pytest.mark.anyio
async def test_readiness_goes_with_the_drain_and_liveness_stays(admin):
    """POST /drain is answered with 202; /readyz says 503 from then on."""
    port = admin()
    assert (await port.ask("GET", "/readyz")).status_code == 200
    answer = await port.ask("POST", "/drain")
    assert (answer.status_code, answer.json()) == (202, {"phase": "draining", "live": 0})
    ready = await port.ask("GET", "/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert (await port.ask("GET", "/livez")).json() == {"status": "live"}
    assert (await port.ask("HEAD", "/livez")).status_code == 200
    assert (await port.ask("GET", "/drain")).status_code == 405


@pytest.mark.anyio
async def test_streams_lists_what_is_live(admin):
    """One row per request, beside the books and the owners' statistics."""
    port = admin()
    async with port.observer.stream() as record:
        record.request_id, record.model = "r1", "llama"
        record.refusal = Refusal(Reason.RATE, 429, "Slow down.")
        body = (await port.ask("GET", "/streams")).json()
    assert [row["id"] for row in body["streams"]] == ["r1"]
    assert body["phase"] == "serving"
    assert body["observer"]["live"] == 1
    assert body["statistics"] == {"slots": 3}


@pytest.mark.anyio
@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("loopback", [True, False])
async def test_probes_and_metrics_never_need_the_token(admin, path, token, loopback):
    """Whoever can connect may read them, also under a service's name."""
    port = admin(token=token, loopback=loopback)
    assert (await port.ask("GET", path, host="streamgate.default.svc")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("token", "loopback", "given", "status"),
    [
        (None, True, None, 200),
        (TOKEN, True, None, 200),
        (None, False, None, 404),
        (None, False, f"Bearer {TOKEN}", 404),
        (TOKEN, False, None, 401),
        (TOKEN, False, "Bearer wrong", 401),
        (TOKEN, False, f"Basic {TOKEN}", 401),
        (TOKEN, False, "Bearer \xe9", 401),
        (TOKEN, False, f"bearer {TOKEN}", 200),
        (TOKEN, False, f"Basic {basic(TOKEN)}", 200),
        (TOKEN, False, f"Basic {basic(TOKEN[:-1])}", 401),
        (TOKEN, False, "Basic /w==", 401),
        (TOKEN, False, f"Digest {TOKEN}", 401),
    ],
)
async def test_everything_else_needs_the_token_off_loopback(admin, token, loopback, given, status):
    """Without a token configured, it does not exist there."""
    port = admin(token=token, loopback=loopback)
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    answer = await port.client.get("/streams", headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) is (status == 401)


@pytest.mark.anyio
async def test_without_the_token_nothing_is_drained(admin):
    """A refused POST has no effect."""
    port = admin(token=TOKEN, loopback=False)
    assert (await port.ask("POST", "/drain")).status_code == 401
    assert port.health.ready().ok


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:9464"},
        {"origin": "http://evil.example:9464", "host": "evil.example:9464"},
    ],
)
async def test_a_web_page_cannot_drain_a_gateway_on_loopback(admin, headers):
    """A foreign Origin, or a name re-bound to this address, is refused."""
    port = admin()
    assert (await port.ask("POST", "/drain", **headers)).status_code == 403
    assert port.health.ready().ok


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:9464", True),
        ("localhost", True),
        ("localhost:9464", True),
        ("[::1]:9464", True),
        ("[::1]", True),
        ("", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:80", False),
    ],
)
def test_a_host_is_local_when_it_is_an_address_or_localhost(host, local):
    """No DNS name but localhost can be sure to mean this machine."""
    assert is_local(host) is local
    assert from_here({"host": host, "origin": f"http://{host}"}) is local


def test_a_token_is_compared_whole():
    """Neither a prefix nor an empty one passes."""
    assert bears(f"Bearer {TOKEN}", TOKEN)
    assert not bears(f"Bearer {TOKEN[:-1]}", TOKEN)
    assert not bears("Bearer ", TOKEN)
    assert not bears("", TOKEN)


@pytest.mark.anyio
async def test_what_does_not_exist_is_not_found_and_other_scopes_pass(admin):
    """An unknown path is a 404 for whoever may ask; a WebSocket is closed."""
    port = admin()
    assert (await port.ask("GET", "/reload")).status_code == 404
    said: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    await port.app({"type": "websocket", "path": "/streams", "headers": [], "scheme": "ws"}, receive, send)
    assert said == ["websocket.close"]


@pytest.mark.anyio
async def test_a_browser_is_asked_for_the_token_as_a_password(admin):
    """Neither the address of a page nor its EventSource can bear a token; programs are told to bear it."""
    port = admin(token=TOKEN, loopback=False)
    asked = await port.ask("GET", "/", accept="text/html,*/*;q=0.8")
    assert asked.headers["www-authenticate"] == 'Basic realm="streamgate", charset="UTF-8"'
    assert (await port.ask("GET", "/")).headers["www-authenticate"] == "Bearer"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"origin": "http://127.0.0.1:9464"}, 202),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9464"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://console.example"}, 202),
        ({"sec-fetch-site": "none"}, 202),
    ],
)
async def test_a_remembered_password_does_not_serve_other_sites(admin, headers, status):
    """A browser adds it to whatever a page of another site sends here: it may lead here, and change nothing."""
    port = admin(token=TOKEN, loopback=False)
    answer = await port.ask("POST", "/drain", authorization=f"Basic {basic(TOKEN)}", **headers)
    assert answer.status_code == status
    assert port.health.ready().ok is (status == 403)
    assert (await port.ask("GET", "/streams", authorization=f"Basic {basic(TOKEN)}", **headers)).status_code == 200
