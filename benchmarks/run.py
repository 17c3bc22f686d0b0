"""Measures streamgate against no gateway and against nginx, all in one run, in turns; prints a table, writes JSON.

    python benchmarks/run.py [--rounds 3] [--streams 200] [--idle 1000] [--only nginx,streamgate]

What is compared is CPU time, by the operating system's account, of the gateway's processes: wall-clock numbers depend
on the machine's other work. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accounting import cpu_seconds, pss_kib
from gateways import HERE, Gateway, gateway, names, scraped, upstream

Measured = dict[str, Any]

PACE = 20  # ms between events: 50 a second
SHORT = 16  # events of a short answer
HOLD = 8000  # ms an idle stream stays silent


class Bench:
    """One upstream, one gateway, and the loads that are put on them."""

    def __init__(self, gate: Gateway, upstream_pid: int, asked: argparse.Namespace) -> None:
        self.gate = gate
        self.upstream_pid = upstream_pid
        self.asked = asked

    def paced(self) -> Measured:
        """Streams at the pace of a fast engine: CPU per event, latency added to each."""
        count = int(self.asked.seconds * 1000 / PACE)
        seen = self.load(f"bench-n{count}-t{PACE}", connections=self.asked.streams, ramp=1.0)
        return seen | {"us_per_event": round(seen["gateway_cpu_s"] / max(seen["events"], 1) * 1e6, 2)}

    def short(self) -> Measured:
        """Short answers on kept connections at a fixed rate: CPU per request."""
        every = 32 / self.asked.rate
        seen = self.load(
            f"bench-n{SHORT}-t0", connections=32, requests=int(self.asked.seconds / every), every=every, ramp=every
        )
        return seen | {"us_per_request": round(seen["gateway_cpu_s"] / max(seen["whole"], 1) * 1e6, 1)}

    def alone(self) -> Measured:
        """One request after another: the time to the first token, without any queueing."""
        return self.load("bench-n1-t0", requests=300, every=0.005)

    def idle(self) -> Measured:
        """Streams that are open and silent: memory of each."""
        if self.gate.process is None:
            return {}
        self.load(f"bench-n{SHORT}-t0", connections=32, requests=8)
        before = pss_kib(self.gate.process.pid)
        with self.client(f"bench-n2-t{HOLD}", connections=self.asked.idle, ramp=HOLD / 2000) as client:
            assert client.stdout is not None
            client.stdout.readline()  # "open"
            during = pss_kib(self.gate.process.pid)
            seen = json.loads(finished(client))
        return seen | {"kib_per_stream": round((during - before) / self.asked.idle, 1), "base_kib": before}

    def load(self, model: str, **options: float) -> Measured:
        """Run the client; what it saw, with the CPU that gateway and upstream spent meanwhile."""
        pids = {"upstream_cpu_s": self.upstream_pid}
        if self.gate.process is not None:
            pids["gateway_cpu_s"] = self.gate.process.pid
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        with scraped(self.gate.admin), self.client(model, **options) as client:
            output = finished(client)
        spent = {name: round(cpu_seconds(pid) - before[name], 4) for name, pid in pids.items()}
        return {"gateway_cpu_s": 0.0} | json.loads(output.splitlines()[-1]) | spent

    def client(self, model: str, **options: float) -> subprocess.Popen[bytes]:
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, str(HERE / "load.py"), str(self.gate.port), model, *flags]
        return subprocess.Popen(command, stdout=subprocess.PIPE)


def finished(client: subprocess.Popen[bytes]) -> bytes:
    """The client's output; a client that does not end is stopped, and the run with it."""
    try:
        return client.communicate(timeout=120)[0]
    except subprocess.TimeoutExpired:
        client.kill()
        raise SystemExit("the client did not come to its end: streams were lost") from None


def measure(name: str, folder: Path, asked: argparse.Namespace, *, memory: bool) -> Measured:
    """One turn of one gateway, both ends fresh."""
    with upstream(folder) as (port, upstream_pid), gateway(name, port, folder) as gate:
        bench = Bench(gate, upstream_pid, asked)
        bench.load(f"bench-n{SHORT}-t0", connections=8, requests=25)  # warm
        turn = {"gateway": name, "paced": bench.paced(), "short": bench.short(), "alone": bench.alone()}
        if memory:
            turn["idle"] = bench.idle()
    complaints = list(doubts(turn))
    print(f"  {name:<11}" + ("".join(f"\n    not to be trusted: {each}" for each in complaints) or "clean"), flush=True)
    return turn | {"doubts": complaints}


def doubts(turn: Measured) -> Iterable[str]:
    """Why a turn says little: lost streams, or a client or upstream that was itself the bottleneck."""
    for load, seen in turn.items():
        if not isinstance(seen, dict) or not seen:
            continue
        if seen["whole"] != seen["streams"]:
            yield f"{load}: {seen['streams'] - seen['whole']} of {seen['streams']} streams did not arrive whole"
        for side in ("cpu_s", "upstream_cpu_s"):
            if seen.get(side, 0.0) > 0.9 * seen["seconds"]:
                yield f"{load}: {'client' if side == 'cpu_s' else 'upstream'} used a whole core"


def median(turns: list[Measured], load: str, *path: str) -> float | None:
    """The median over the rounds of one number; None where it was not measured."""
    values = []
    for turn in turns:
        value: Any = turn.get(load, {})
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return round(statistics.median(values), 3) if values else None


def ratio(rounds: list[list[Measured]], name: str, load: str, number: str) -> float | None:
    """Median over the rounds of this gateway's number by nginx's of the same round."""
    pairs = []
    for turns in rounds:
        by_name = {turn["gateway"]: turn[load][number] for turn in turns}
        if by_name.get("nginx") and name in by_name:
            pairs.append(by_name[name] / by_name["nginx"])
    return round(statistics.median(pairs), 2) if pairs else None


def summary(rounds: list[list[Measured]]) -> list[Measured]:
    """One row per gateway."""
    by_name: dict[str, list[Measured]] = {}
    for turns in rounds:
        for turn in turns:
            by_name.setdefault(turn["gateway"], []).append(turn)
    rows = []
    for name, turns in by_name.items():
        row: Measured = {
            "gateway": name,
            "us_per_event": median(turns, "paced", "us_per_event"),
            "event_x_nginx": ratio(rounds, name, "paced", "us_per_event"),
            "us_per_request": median(turns, "short", "us_per_request"),
            "request_x_nginx": ratio(rounds, name, "short", "us_per_request"),
            "kib_per_idle_stream": median(turns, "idle", "kib_per_stream"),
        }
        for label, load, number in (("ttft", "alone", "first_token_ms"), ("relay", "paced", "relay_ms")):
            for cut in ("p50", "p99"):
                value, base = median(turns, load, number, cut), median(by_name.get("direct", []), load, number, cut)
                added = None if value is None or base is None else round(value - base, 3)
                row |= {f"{label}_{cut}_ms": value, f"added_{label}_{cut}_ms": added}
        rows.append(row)
    return rows


def table(rows: list[Measured]) -> str:
    def shown(value: object) -> str:
        return "-" if value in (None, 0.0) else str(value)

    heads = ["gateway", "CPU us/event", "x nginx", "CPU us/request", "x nginx", "added TTFT ms p50 / p99"]
    heads += ["added per event ms p50 / p99", "KiB/idle stream"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [shown(row[key]) for key in ("gateway", "us_per_event", "event_x_nginx", "us_per_request")]
        cells.append(shown(row["request_x_nginx"]))
        cells += [
            f"{shown(row[f'added_{each}_p50_ms'])} / {shown(row[f'added_{each}_p99_ms'])}" for each in ("ttft", "relay")
        ]
        cells.append(shown(row["kib_per_idle_stream"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> Measured:
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure streamgate against no gateway and nginx.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=200, help="paced streams, 50 events a second each")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load")
    parser.add_argument("--rate", type=float, default=300.0, help="short requests a second")
    parser.add_argument("--idle", type=int, default=1000, help="idle streams")
    parser.add_argument("--only", default=",".join(names()), help="which gateways, separated by commas")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    started = {"machine": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    rounds = []
    with tempfile.TemporaryDirectory(prefix="streamgate-bench-") as scratch:
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", flush=True)
            folder = Path(scratch)
            rounds.append([measure(name, folder, asked, memory=number == 0) for name in asked.only.split(",")])
    rows = summary(rounds)
    print(f"\n{table(rows)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    target = asked.out / time.strftime("%Y%m%dT%H%M%S.json", time.gmtime())
    target.write_text(json.dumps(started | {"summary": rows, "rounds": rounds}, indent=1))
    print(f"\nwritten to {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
