"""docs/sse.md names everything that `streamgate.sse` has, with the defaults it has, and its code is code that runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

import streamgate.sse
from streamgate.observe.sse import PrometheusObserver
from streamgate.sse import Account, AppStatus, Ending, EventSourceResponse, Slow, SSEError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sse.md").read_text()
PARAMETERS = list(inspect.signature(EventSourceResponse.__init__).parameters.values())[1:]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# A block that the comment `runs` stands above is run; with `GET /path` after it, its `app` is asked for that.
BLOCK = re.compile(r"(?:<!-- (?P<mark>runs[^\n]*?) -->\n)?```python\n(?P<code>.*?)```\n", re.DOTALL)
BLOCKS = list(BLOCK.finditer(PAGE))
# Not read off the class: test suites of others set attributes there, and so do ours.
SWITCH = (
    *("should_exit", "enable_automatic_graceful_drain", "disable_automatic_graceful_drain"),
    *("enable_automatic_graceful_drain_mode", "handle_exit", "original_handler"),
)
LINES = [PAGE.count("\n", 0, block.start()) + 1 for block in BLOCKS]


def section(title: str) -> str:
    """What stands between this heading and the next."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each table row."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def first_cells(text: str) -> set[str]:
    """What stands in code in the first column."""
    return {name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_name_is_listed_and_no_other():
    """The table of names is `streamgate.sse.__all__`."""
    assert first_cells(section("Names")) == set(streamgate.sse.__all__)


def test_parameters_are_in_the_order_of_the_signature():
    """The tables of the response are its signature: first what may be given by position, then the rest."""
    listed = [re.findall(r"`(\w+)`", row[0]) for row in rows(section("The response"))]
    assert [names[0] for names in listed if names] == [each.name for each in PARAMETERS]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda each: each.name)
def test_every_default_is_the_one_that_is_written(parameter: inspect.Parameter):
    """`None: 15` means that None stands for the class's own default."""
    [written] = [row[1] for row in rows(section("The response")) if row[0] == f"`{parameter.name}`"]
    if parameter.default is parameter.empty:
        assert written == "required"
        return
    value, _, meant = written.partition(":")
    text = repr(parameter.default).replace("'", '"')
    assert value == f"`{text}`"
    constant = {"ping": "DEFAULT_PING_INTERVAL", "sep": "DEFAULT_SEPARATOR"}.get(parameter.name)
    if constant is not None:
        assert meant.strip(" `") == repr(getattr(EventSourceResponse, constant)).replace("'", '"')


def test_class_constants_are_written_with_their_values():
    """What a subclass may set."""
    text = section("The response").replace("\n", " ")
    for name in (each for each in vars(EventSourceResponse) if each.startswith("DEFAULT_")):
        value = repr(getattr(EventSourceResponse, name)).strip("'")
        assert re.search(rf"`{name}` \([`\"]*{re.escape(value)}[`\"]*\)", text), name


def test_every_ending_has_its_row():
    """In the table of endings, and nothing else in its first column."""
    assert first_cells(section("How streams end")) - {"Ending"} == {ending.value for ending in Ending}


def test_every_field_of_an_account_is_explained():
    """And nothing that is no field."""
    table = section("Observers").partition("| metric |")[0]
    assert first_cells(table) - {"Account"} == set(Account.__slots__)


def test_every_metric_is_listed():
    """With its type and its labels."""
    listed = {row[0].strip("`"): row[1:3] for row in rows(section("Observers").partition("| metric |")[2])}
    for metric in PrometheusObserver(None).describe():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        kind, labels = listed.pop(name)
        assert kind == metric.type
        assert labels == ("route, ending" if name == "sse_streams_total" else "route")
    assert listed.keys() <= {""} | {name for name in listed if not name.startswith("sse_")}


def test_every_error_is_listed():
    """Each exception class that the package gives out, and each is an `SSEError`."""
    public = [getattr(streamgate.sse, name) for name in streamgate.sse.__all__]
    kinds = [each for each in public if inspect.isclass(each) and issubclass(each, Exception)]
    assert {kind.__name__ for kind in kinds} == first_cells(section("Errors"))
    assert all(issubclass(kind, SSEError) for kind in kinds)


def test_the_switch_is_described():
    """Every public attribute of `AppStatus`, and every policy for slow subscribers."""
    for name in SWITCH:
        assert hasattr(AppStatus, name)
        assert re.search(rf"`{name}\b", section("Shutdown")), name
    for policy in Slow:
        assert f"`Slow.{policy.name}`" in section("Broadcast and channel")


def test_every_example_is_listed():
    """Each file of examples/ has its row, and each row its file."""
    linked = re.findall(r"^\| \[([\w.]+)\]\(\.\./examples/([\w.]+)\) \|", section("Examples"), re.MULTILINE)
    assert all(shown == target for shown, target in linked)
    assert sorted(target for _, target in linked) == [path.name for path in EXAMPLES]


def test_links_within_the_page_lead_somewhere():
    """`#how-streams-end` is a heading."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors


def test_the_page_says_how_to_migrate_first():
    """Before the first heading of a section, the one import line."""
    assert "from streamgate.sse import X" in PAGE.partition("\n## ")[0]


@pytest.mark.anyio
@pytest.mark.parametrize("block", BLOCKS, ids=[f"line {number}" for number in LINES])
async def test_code_is_code(block: re.Match[str], anyio_backend_name: str):
    """Every block compiles; those that are marked run, and their application answers with events."""
    code = compile(block["code"], "docs/sse.md", "exec")
    mark = block["mark"]
    if mark is None:
        return
    names: dict[str, Any] = {"__name__": "document"}
    exec(code, names)
    path = mark.removeprefix("runs").removeprefix(": GET ")
    if path:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://page") as client:
            answer = await client.get(path)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.text.count("data: ") > 1


def test_most_code_runs():
    """A block that is only compiled is an exception: one that would register metrics for the whole process."""
    unmarked = [block["code"] for block in BLOCKS if block["mark"] is None]
    assert len(BLOCKS) >= 8
    assert all("PrometheusObserver()" in code for code in unmarked)
    assert PrometheusObserver.__init__.__defaults__ == (REGISTRY,)
