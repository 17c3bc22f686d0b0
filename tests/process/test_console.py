"""The live page in a browser: headless Chromium before a gateway under load."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import Served, served, wait_until

STRANGE = "<img src=x onerror=document.title='owned'>"
ROWS = "#streams tbody tr"


@pytest.fixture
def browser(need) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=need("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield chromium
        chromium.close()


@pytest.fixture
def gateway() -> Iterator[Served]:
    """Streams stall after two tokens, which shows after a second."""
    with served(play="demo-n100-t20-stall3", STREAMGATE_CLOCKS__STALL="1") as running:
        yield running


class Told(list[str]):
    """Whatever the page complains of: errors, and what the policy forbade."""

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda line: self.append(line.text) if line.type in {"error", "warning"} else None)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def page(browser, gateway, told) -> Page:
    page = browser.new_page()
    told.listen(page)
    page.goto(gateway.admin)
    return page


def test_it_shows_streams_as_text_and_kills_one(page, gateway, told):
    """A name that is HTML shows as it is written, a stalled stream is named so; Kill asks, ends and lists it."""
    response = gateway.chat(STRANGE, "stuck-1")
    row = page.locator(ROWS)
    expect(row.locator('td[data-label="model"]')).to_have_text(STRANGE)
    expect(row.locator('td[data-label="phase"]')).to_have_text("stalled", timeout=10_000)
    expect(row.locator('td[data-label="chunks"]')).to_have_text("3")
    assert page.title() == "streamgate"
    row.get_by_role("button").click()
    expect(page.locator("#consequence")).to_contain_text(f"{STRANGE}, request stuck-1.")
    page.get_by_role("button", name="Cancel").click()
    assert [each["id"] for each in gateway.streams()] == ["stuck-1"]
    row.get_by_role("button").click()
    page.get_by_role("button", name="Kill", exact=True).click()
    expect(page.locator("#notice")).to_have_text("Killed stuck-1.")
    assert '"code":"killed"' in response.read().decode().replace(" ", "")
    ending = page.locator("#endings tbody tr")
    expect(ending.locator('td[data-label="outcome"]')).to_have_text("killed")
    expect(ending.locator('td[data-label="request id"]')).to_have_text("stuck-1")
    expect(page.locator("#idle")).to_be_visible()
    content = page.content()
    assert "nobody may see" not in content and "nobody-may-see" not in content
    assert told == []


def test_its_charts_and_numbers_move(page, gateway, told):
    """Five charts with the ten minutes there are; the numbers of this second; the upstream."""
    for number in range(3):
        gateway.chat("demo", f"r{number}")
    expect(page.locator("#numbers div").first).to_have_text("active3")
    expect(page.locator("figure")).to_have_count(5)
    expect(page.locator("figure output").first).to_have_text("3")
    expect(page.locator('#upstreams td[data-label="health"]')).to_have_text("ok")
    expect(page.locator('#upstreams td[data-label="circuit"]')).to_have_text("closed")
    expect(page.locator("#state")).to_have_text("ready")
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(value => value > 0)"
    assert all(canvas.evaluate(drawn) for canvas in page.locator("figure canvas").all())
    assert told == []


def test_limits_and_the_queue_show_what_is_full_and_who_waits(browser, told):
    """The slots of the gateway and of each level with a limit; who waits by class, and for how long."""
    with served(
        play="demo-n100-t20-stall3", STREAMGATE_LIMITS__CONCURRENT="2", STREAMGATE_LIMITS__QUEUE="5",
        STREAMGATE_LIMITS__MAX_WAIT="60", STREAMGATE_CLOCKS__EARLY_COMMIT="0",
    ) as gateway:  # fmt: skip
        page = browser.new_page(viewport={"width": 390, "height": 844})
        told.listen(page)
        page.goto(gateway.admin)
        expect(page.locator("#unlimited")).to_be_visible()
        for number in range(3):  # the head comes at once, also to the one that waits
            gateway.chat("demo", f"r{number}")
        row = page.locator("#slots tbody tr")
        expect(row.locator('td[data-label="name"]')).to_have_text("gateway")
        expect(row.locator('td[data-label="in use"]')).to_have_text("2")
        expect(row.locator('td[data-label="full"]')).to_have_text("100 %")
        expect(page.locator("#queue")).to_have_text(re.compile(r"waiting: 1 interactive, the longest for [\d.]+ s"))
        expect(page.locator("#troubles")).to_have_text("")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert told == []


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_it_fits_a_laptop_and_a_phone(browser, gateway, width, height):
    """Nothing sticks out to the side, and every value is on the screen's width with its name."""
    gateway.chat("a-model-with-quite-a-long-name-as-they-come-from-hubs/instruct-8b-q4", "a" * 128)
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(gateway.admin)
    expect(page.locator(ROWS)).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = page.locator(f"{ROWS} td").all()
    boxes = [box for cell in cells if (box := cell.bounding_box())]
    assert len(boxes) == len(cells)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    page.close()


def test_a_drain_is_asked_for_and_told(page, gateway):
    """The button asks; then the page says draining, and at last that it is not connected."""
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(page.locator("#state")).to_have_text(re.compile("drain|not connected"))
    assert gateway.process.wait(20) == 0
    expect(page.locator("#state")).to_have_text("not connected")
    expect(page.locator("#drain")).to_be_disabled()


def test_off_loopback_a_browser_is_asked_for_the_token(browser):
    """Without it nothing is shown; with it as a password page, feed and actions work."""
    with ExitStack() as stack:
        gateway = stack.enter_context(
            served(
                "--admin",
                "0.0.0.0:0",
                play="demo-n100-t20-stall3",
                STREAMGATE_ADMIN__TOKEN="${THE_TOKEN}",
                THE_TOKEN="the-token",
            )
        )
        admin = gateway.admin.replace("0.0.0.0", "127.0.0.1")
        stranger = browser.new_context()
        assert stranger.request.get(admin).status == 401
        page = browser.new_context(http_credentials={"username": "me", "password": "the-token"}).new_page()
        page.goto(admin)
        gateway.chat("demo", "mine")
        expect(page.locator(ROWS)).to_have_count(1)
        page.locator(ROWS).get_by_role("button").click()
        page.get_by_role("button", name="Kill", exact=True).click()
        expect(page.locator("#notice")).to_have_text("Killed mine.")
        wait_until(lambda: "mine" not in page.locator("#streams").text_content())
