"""What the documents promise is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgate.errors import BadStatus, Fault, Reason, Stale
from streamgate.observe.metrics import METRICS, document
from streamgate.record import OUTCOME_OF, Outcome

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_metrics_md_is_what_the_code_writes():
    """`make docs` was run after the last change of a metric."""
    assert (DOCS / "metrics.md").read_text() == document()


def test_every_metric_is_named_as_prometheus_asks():
    """Snake case under one prefix; counters end in _total, times in _seconds; a help is a sentence."""
    for metric in METRICS:
        assert re.fullmatch(r"streamgate_[a-z_]+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.bounds)
        assert metric.help.endswith(".")
        assert list(metric.bounds) == sorted(metric.bounds)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("word", [*Outcome, *Reason])
def test_every_outcome_and_reason_has_its_line_in_the_runbook(word):
    """An operator who sees the word finds what to do."""
    assert f"| `{word.value}` |" in (DOCS / "operations.md").read_text()


def test_links_between_documents_lead_somewhere():
    """A relative link names a file that exists."""
    for page in [*DOCS.glob("**/*.md"), ROOT / "CHANGELOG.md", *ROOT.glob("README.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_makefile_is_short_and_its_targets_say_what_they_do():
    """At most 14 targets, each with a line of help."""
    targets = re.findall(r"^([a-z-]+):.*?(## .+)?$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) <= 14
    assert all(said for _, said in targets)


def faults() -> list[type[Fault]]:
    found, todo = [], [Fault]
    while todo:
        found += (kinds := todo.pop().__subclasses__())
        todo += kinds
    return found


def test_every_error_code_is_documented():
    """Codes of faults with their status and outcome, and the codes that refusals are given anywhere in the code."""
    page = (DOCS / "errors.md").read_text()
    for fault in faults():
        rows = [line for line in page.splitlines() if line.startswith(f"| `{fault.code}` | {fault.status}")]
        assert rows, fault
        outcome = OUTCOME_OF.get(fault, Outcome.UPSTREAM_ERROR).value
        assert fault in (BadStatus, Stale) or any(outcome in row for row in rows), fault
    given = {code for path in (ROOT / "streamgate").rglob("*.py") for code in CODE.findall(path.read_text())}
    assert len(given) > 10
    for code in given:
        assert f"| `{code}` |" in page, code


CODE = re.compile(r'code="([a-z_]+)"')
