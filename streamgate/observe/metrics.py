"""A scrape: every number at one moment, and the page that lists what they mean.

The names are a promise: docs/metrics.md is written from their table (`python -m streamgate.observe.metrics`), and a
test compares them.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from streamgate import __version__
from streamgate.errors import Reason
from streamgate.observe import names
from streamgate.observe.families import LABEL_SETS, Distribution, Distributions, Key
from streamgate.observe.figures import FAMILIES_SHOWN, LONGEST, PluginReadings
from streamgate.observe.live import Pressure
from streamgate.observe.names import METRICS, Named
from streamgate.observe.observer import Observer
from streamgate.observe.plugins import CHUNK_HOOKS, WRONGS
from streamgate.observe.tally import Readings, StoreReadings
from streamgate.record import Outcome

__all__ = ["FAMILIES", "METRICS", "Named", "Scrape", "copied", "document", "scrape", "series"]

# Which of the tally's families is which metric.
FAMILIES = {
    "started": names.STARTED,
    "ended": names.STREAMS,
    "rejected": names.REJECTED,
    "requests": names.REQUESTS,
    "first_token": names.FIRST_TOKEN,
    "first_chunk": names.FIRST_CHUNK,
    "gaps": names.GAPS,
    "per_token": names.PER_TOKEN,
    "durations": names.DURATION,
    "overhead": names.OVERHEAD,
    "chunks": names.CHUNKS,
    "bytes": names.BYTES,
    "tokens": names.TOKENS,
    "queue_wait": names.QUEUE_WAIT,
    "attempts": names.ATTEMPTS,
    "retries": names.RETRIES,
    "failovers": names.FAILOVERS,
    "connects": names.CONNECT,
    "lag": names.LAG,
    "plugin_calls": names.PLUGIN_CALLS,
    "plugin_chunks": names.PLUGIN_CHUNKS,
    "plugin_errors": names.PLUGIN_ERRORS,
}
STATES = ("closed", "open", "half_open")


class Scrape(NamedTuple):
    """One moment of everything, copied: rendering it in another thread disturbs nobody."""

    numbers: Mapping[Named, Mapping[Key, float]]
    distributions: Mapping[Named, Mapping[Key, Distribution]]


async def scrape(observer: Observer, took: float = 0.0) -> Scrape:
    """Fold the live streams, then copy all numbers in one turn of the loop, so that the books balance in them.

    `took` is what the scrape before this one took, in seconds.
    """
    return copied(observer, await observer.fold(), took)


def copied(observer: Observer, pressure: Pressure, took: float = 0.0) -> Scrape:
    families = observer.tally.families()
    numbers: dict[Named, Mapping[Key, float]] = {}
    distributions: dict[Named, Mapping[Key, Distribution]] = {}
    for name, family in families.items():
        if isinstance(family, Distributions):
            named = FAMILIES[name]._replace(bounds=family.bounds)
            distributions[named] = {key: cell.copy() for key, cell in family.cells.items()}
        else:
            numbers[FAMILIES[name]] = dict(family.cells)
    numbers[names.OVERFLOWS] = {
        (FAMILIES[name].name,): family.overflowed for name, family in families.items() if family.overflowed
    }
    numbers[names.STREAMS] = with_zeros(numbers[names.STREAMS], Outcome)
    numbers[names.REJECTED] = with_zeros(numbers[names.REJECTED], Reason)
    readings = observer.readings()
    numbers |= of_streams(observer, pressure) | of_upstreams(readings) | of_server(readings)
    numbers |= of_admission(readings) | of_store(readings.store)
    numbers |= of_plugins(readings.plugins, numbers)
    numbers[names.SCRAPE] = {(): took}
    own = observer.shelf.copied(readings.plugins)
    return Scrape(numbers | own.numbers, distributions | own.distributions)


def with_zeros(cells: Mapping[Key, float], words: Iterable[str], also: Iterable[Key] = ()) -> Mapping[Key, float]:
    """Beside each cell those of the same label set with another last word, at 0; `also`, the same of these label sets.

    `rate()` sees no increase in a series that is born at 1: the first failure of an upstream would not show.
    """
    last = [str(word) for word in words]
    return {(*named, word): 0 for named in {key[:-1] for key in cells} | set(also) for word in last} | dict(cells)


def of_streams(observer: Observer, pressure: Pressure) -> dict[Named, Mapping[Key, float]]:
    """What is not kept in families."""
    return {
        names.ACTIVE: {(phase,): count for phase, count in observer.phases().items()},
        names.STALLED: {(): pressure.stalled},
        names.OLDEST_WAIT: {(): pressure.oldest_wait},
        names.BUFFERED: {(): pressure.buffered},
        names.SLOW: {(): pressure.slow},
        names.BLOCKED: {(): observer.tally.blocked},
        names.PINGS: {(): observer.tally.pings},
    }


def of_upstreams(readings: Readings) -> dict[Named, Mapping[Key, float]]:
    circuits = readings.circuits
    return {
        names.UP: {(upstream,): int(state == "closed") for upstream, state in circuits.items()},
        names.CIRCUIT: {
            (upstream, each): int(each == state) for upstream, state in circuits.items() for each in STATES
        },
        names.UPSTREAM_CONNECTIONS: {tuple(key): count for key, count in readings.upstream_connections.items()},
    }


def of_admission(readings: Readings) -> dict[Named, Mapping[Key, float]]:
    return {
        names.LIMIT: {(): readings.streams_limit},
        names.SLOTS_USED: {(each.level, each.name): each.used for each in readings.slots},
        names.SLOTS_LIMIT: {(each.level, each.name): each.limit for each in readings.slots},
        names.QUEUE_WAITING: {(priority,): count for priority, count in readings.waiting.items()},
        names.QUEUE_OLDEST: {(): readings.oldest_waiting},
        names.QUEUE_LIMIT: {(): readings.queue_limit},
        names.QUEUE_MAX_WAIT: {(): readings.max_wait},
        names.OVERLOADED: {(cause,): int(is_so) for cause, is_so in readings.overloaded.items()},
        names.KEYS_REFUSED: {(): readings.keys_file_refused},
    }


def of_store(store: StoreReadings | None) -> dict[Named, Mapping[Key, float]]:
    """Without a store there is nothing to say, neither up nor down."""
    return {
        names.STORE_UP: {} if store is None else {(): int(store.up)},
        names.STORE_ASKED: {} if store is None else {(): store.asked},
        names.STORE_RESULTS: {} if store is None else {(word,): count for word, count in store.results.items()},
        names.RENEWALS: {} if store is None else {(word,): count for word, count in store.renewals.items()},
    }


def of_plugins(
    plugins: Sequence[PluginReadings], counted: Mapping[Named, Mapping[Key, float]]
) -> dict[Named, Mapping[Key, float]]:
    """What was counted of them, with zeros for what their hooks have not done yet, and their breakers."""
    hooks = [(plugin.name, hook) for plugin in plugins for hook in plugin.hooks]
    return {
        names.PLUGIN_CHUNKS: {key: 0 for key in hooks if key[1] in CHUNK_HOOKS} | dict(counted[names.PLUGIN_CHUNKS]),
        names.PLUGIN_ERRORS: with_zeros(counted[names.PLUGIN_ERRORS], WRONGS, hooks),
        names.PLUGIN_BREAKER: {
            (plugin.name, each): int(each == plugin.breaker) for plugin in plugins for each in STATES
        },
    }


def of_server(readings: Readings) -> dict[Named, Mapping[Key, float]]:
    return {
        names.CONNECTIONS: {(): readings.connections},
        names.DRAINING: {(): int(readings.draining)},
        names.READY: {(): int(readings.ready)},
        names.BUILD: {(__version__, platform.python_version()): 1},
        names.CONFIG: {(readings.config_hash,): 1},
        names.LINES_DROPPED: {(): readings.log_lines_dropped},
        names.TELEMETRY_DROPPED: {(signal,): count for signal, count in readings.telemetry_dropped.items()},
    }


def series(labels: set[str]) -> int:
    """How many series each new set of these labels adds, in histograms: their buckets, a sum and a count."""
    return sum(len(metric.bounds) + 3 for metric in METRICS if metric.bounds and set(metric.labels) == labels)


def estimate(models: int) -> int:
    """Series in all for so many models, each with an upstream and an outcome class of its own; to the hundred."""
    own = series({"model", "upstream"}) + series({"model", "outcome_class"}) + series({"upstream"})
    return round(models * own * 11, -3) // 10  # counters and gauges are a tenth


def document() -> str:
    """docs/metrics.md."""
    rows = "\n".join(f"| `{m.name}` | {m.kind} | {' '.join(m.labels) or '-'} | {m.help} |" for m in METRICS)
    bounds = "\n".join(f"- `{m.name}`: {' '.join(f'{bound:g}' for bound in m.bounds)}" for m in METRICS if m.bounds)
    tail = TAIL
    for name, number in {
        "$pair": series({"model", "upstream"}),
        "$model": series({"model", "outcome_class"}),
        "$upstream": series({"upstream"}),
        "$class": series({"priority"}),
        "$hook": series({"plugin", "hook"}),
        "$families": FAMILIES_SHOWN,
        "$longest": LONGEST,
        "$sixty": f"{estimate(60):,}",
        "$cap": LABEL_SETS,
    }.items():
        tail = tail.replace(name, str(number))
    return f"{HEAD}{rows}\n\n## Buckets, in seconds\n\n{bounds}\n{tail}"


HEAD = """\
# Metrics

Written from the code by `make docs`; a test compares the two. Names, labels and meanings are a promise: a change of
one is a breaking change.

They are served by the admin port at `/metrics`, as Prometheus text or OpenMetrics by the scraper's choice, together
with the stock `process_*` and `python_*` metrics.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
The thresholds of `observe.slo` in the configuration are bounds too, of `streamgate_time_to_first_token_seconds`,
`streamgate_time_per_output_token_seconds` and `streamgate_stream_duration_seconds`: the share of streams that were
fast enough can only be read off a bound. `le` is written as `2.0`, never as `2`.

## How to read them

- `streamgate_streams_started_total` = the sum of `streamgate_streams_total` over all outcomes + the sum of
  `streamgate_streams_active` without phase `queued`, in every single scrape.
- Success is `outcome="completed"` / (all outcomes less client_closed, slow_client, killed and plugin_abort).
- Counters of events, bytes, gaps, first tokens, pings and blocked time move while a stream runs; outcome, duration,
  tokens and the time per output token come at its end.
- Label values are configured names, never what a client sent. Above $cap sets of names in one metric, the rest are
  counted under `__overflow__`, and `streamgate_metric_label_overflow_total` says so. A stream that ended before it had
  an upstream has `upstream="none"`; a path or a method that a client made up is `other`.
- Phases: `queued` (no lease yet), `waiting_first_token`, `streaming`, `ending` (last bytes on their way).
- Types of tokens: `input` and `output` are totals; `cached_input`, `cache_write` and `reasoning` are parts of them.
  Do not add `source="estimated"` to `source="usage"`: the first is a guess for streams that nobody counted.
- Nothing is labelled by key or tenant: whose stream it was is in its log line and span. `priority` is one of the
  configured classes, `none` where a request has no class.
- A scrape has `streamgate_slots_used` and the streams of one moment: the global level's are the streams that are not
  `queued`, less those whose last bytes are on their way (`ending`), which have given their slots back.
- `streamgate_plugin_seconds` / its count is what a call of a hook takes. An event is too short for a histogram of its
  own: `streamgate_plugin_chunk_seconds_total` has what streams spent in `on_event` and `on_text`, added when they end.
  Of a plugin that does not wait, its rate is the part of the event loop that the plugin takes: 1 is all of it.
- A hook that never gives the event loop back stops `/metrics` as well: the log line `plugin_stuck` names it.
- What plugins count themselves is here as `streamgate_plugin_<plugin>_<name>`: at most $families metrics of a plugin,
  of 100 label sets each (the rest is under `other`), label values cut at $longest characters. A metric is left out
  where its name is that of another one; the log line `plugin_metric_left_out` says so.
- OpenMetrics has exemplars with a `trace_id` on the buckets of first token and duration, of streams whose trace is
  kept; Prometheus stores them with `--enable-feature=exemplar-storage`.

## How many series

A histogram is a series per bucket and three more. Each pair of a model and an upstream that served it is $pair
series, each model $model more per outcome class, each upstream $upstream, each class of the queue $class, each hook of
a plugin $hook; counters and gauges add about a tenth. 60
models with an upstream each are about $sixty series; above 100 models, give patterns in `routes` and let them share
a label. Rendering is done in a thread of its own and holds the event loop for less than 5 ms at 7,000 series.
"""


if __name__ == "__main__":
    sys.stdout.write(document())
