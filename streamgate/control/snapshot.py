"""What the live page shows, as plain values: made once a second, whoever watches.

No prompts, no keys, no addresses of clients. Ages are in seconds, times to the first token in milliseconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamgate import __version__
from streamgate.control.admitting import Limits
from streamgate.control.health import Health
from streamgate.drain import Drain
from streamgate.observe import Observer, Readings
from streamgate.record import Ending, Outcome, Phase, StreamRecord
from streamgate.relay.targets import Targets
from streamgate.relay.tries import Tries
from streamgate.upstream.client import Upstreams

ROWS = 200  # of the table; what is quiet comes first, so what is missing is what runs well
LIMITS = 30  # rows of limits, the fullest first

Snapshot = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The parts of a gateway that the page looks at."""

    observer: Observer
    drain: Drain
    health: Health
    running: Mapping[StreamRecord, Tries]
    targets: Targets
    upstreams: Upstreams
    limits: Limits


def snapshot(scene: Scene, *, now: float, wall: float, born: float) -> Snapshot:
    """The state of things at `now` (monotonic seconds, as `born`, the gateway's start), in Unix time `wall`."""
    phases = scene.observer.phases()
    readings = scene.observer.readings()
    live = scene.observer.live
    ranks = {record: urgency(record, now, scene.observer.stall) for record in live}
    shown = heapq.nsmallest(ROWS, ranks, key=ranks.__getitem__)
    return {
        "at": round(wall, 3),
        "version": __version__,
        "uptime_s": round(now - born, 1),
        "phase": scene.drain.phase.value,
        "ready": scene.health.ready().ok,
        "active": scene.observer.active,
        "limit": scene.limits.concurrent,
        "queued": phases["queued"],
        "queue_limit": scene.limits.queue,
        "waiting": dict(readings.waiting),
        "longest_wait_s": round(readings.oldest_waiting, 1),
        "slots": slot_rows(readings),
        "troubles": troubles(readings),
        "stalled": sum(1 for calm, _ in ranks.values() if not calm),
        "phases": phases,
        "upstreams": upstream_rows(scene, now),
        "total": len(live),
        "streams": [stream_row(record, now, stalled=not ranks[record][0]) for record in shown],
    }


def slot_rows(readings: Readings) -> list[Snapshot]:
    """The shared limits of concurrent streams, the fullest first."""
    limited = [each for each in readings.slots if each.limit]
    fullest = heapq.nsmallest(LIMITS, limited, key=lambda each: -each.used / each.limit)
    return [{"level": each.level, "name": each.name, "used": each.used, "limit": each.limit} for each in fullest]


def troubles(readings: Readings) -> list[str]:
    """Why newcomers are refused, or let in without asking other replicas: `lag`, `memory`, `store`."""
    store = ["store"] if readings.store is not None and not readings.store.up else []
    return [cause for cause, is_so in readings.overloaded.items() if is_so] + store


def urgency(record: StreamRecord, now: float, stall: float) -> tuple[bool, float]:
    """Sorts what needs looking at to the front: the stalled ones, then by how long each has been quiet.

    Stalled is what `streamgate_streams_stalled` counts: the upstream has been silent for `stall` seconds (0: never),
    and it is not the client that takes nothing.
    """
    quiet = now - (record.t_last or record.t_leased or record.t_read or record.t_received)
    if not 0 < stall < quiet or not record.stream or not record.t_leased or record.phase is Phase.ENDED:
        return True, -quiet
    return record.outlet is not None and record.outlet.blocked_at > 0, -quiet


def stream_row(record: StreamRecord, now: float, *, stalled: bool) -> Snapshot:
    flowing = now - record.t_first if record.t_first else 0.0
    outlet = record.outlet
    blocked_at = outlet.blocked_at if outlet is not None else 0.0
    return {
        "id": record.request_id,
        "phase": record.phase.value,
        "stalled": stalled,
        "age_s": round(now - record.t_received, 1),
        "model": record.model,
        "upstream": record.upstream or None,
        "attempts": record.attempts,
        "ttft_ms": first_token_ms(record),
        "chunks": record.events,
        "chunks_per_s": round(record.events / flowing, 1) if flowing > 0 else None,
        "quiet_s": round(now - record.t_last, 1) if record.t_last else None,
        "buffered": outlet.buffered if outlet is not None else 0,
        "blocked_s": round(now - blocked_at, 1) if blocked_at else None,
    }


def first_token_ms(record: StreamRecord) -> float | None:
    """From the whole request to the first semantic event."""
    if not record.t_first:
        return None
    return round(max(0.0, record.t_first - (record.t_read or record.t_received)) * 1000, 1)


def upstream_rows(scene: Scene, now: float) -> list[Snapshot]:
    connections = scene.upstreams.statistics()
    tries = scene.targets.active()
    circuits = scene.targets.circuits(now)
    rows = []
    for name, (failures, out) in scene.targets.standing(now).items():
        books = connections.get(name)
        rows.append(
            {
                "name": name,
                "health": "ejected" if out else "failing" if failures else "ok",
                "circuit": circuits[name].value,
                "failures": failures,
                "ejected_s": round(out, 1),
                "tries": tries[name],
                "active": books.active if books else 0,
                "pooled": books.pooled if books else 0,
            }
        )
    return rows


def ending_row(record: StreamRecord, outcome: Outcome, wall: float, now: float) -> Snapshot:
    """One stream that ended badly. `wall` and `now` are the same moment."""
    return {
        "at": round(wall - (now - record.t_end), 3),
        "outcome": outcome.value,
        "reason": reason(record.ending),
        "model": record.model,
        "upstream": record.upstream or None,
        "id": record.request_id,
        "chunks": record.events,
        "age_s": round(record.t_end - record.t_received, 1),
    }


def reason(ending: Ending | None) -> str | None:
    """The error's code, as the client was told it; an upstream's own words stay in the log."""
    return ending.fault.code if ending is not None and ending.fault is not None else None


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which this share lies (nearest rank); None of nothing."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
