"""What the documents promise is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgate.errors import Reason
from streamgate.observe.metrics import METRICS, document
from streamgate.record import Outcome

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
