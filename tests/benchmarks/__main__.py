"""`python -m tests.benchmarks`: measure, print a table, and fail where a figure is beyond its limit.

The floors come from the same run as the service: a bare echo of the same sizes, and LightGBM's C API on the same rows. All parts of
a round run one after the other, so that a machine that is slower for a while is slower for both sides of a ratio.
"""

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_LIVE,
    DECISION_VIEW_BASIC,
    DECISION_VIEW_FULL,
    DecisionMode,
    DecisionView,
)
from tests.benchmarks import bulk, curved, latency, planning, propensities
from tests.benchmarks.figures import (
    MEMORY,
    MLFLOW,
    RATIO,
    SCORING,
    START,
    START_CPU,
    THROUGHPUT,
    Measured,
    beyond_limits,
    to_json,
    to_markdown,
)
from tests.benchmarks.mlflow_serve import FORMS, Rival, mlflow_server
from tests.benchmarks.processes import Load, Running, echo, memory_megabytes, service
from tests.benchmarks.subject import HISTORY, SAMPLE, Subject, prepare
from tests.benchmarks.workload import COLUMNS, LEAVES, TREES, make_worlds

_IN_FLIGHT = 4
_BUSY = 16
_WARM_UP = 64
_PHASES = 3
"""Live phases of a round."""
_FEWER = 4
"""A large decision costs several times a small one, and is asked for so many times less."""
_COST = "ms CPU/call"
_PARTS = ("decisions", "curves", "mlflow", "latency", "kernels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a figure is beyond its limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--calls", type=int, default=1500, help="calls of one measurement at 40 rows")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="what is measured (default: all)")
    parser.add_argument("--json", type=Path, help="also write every round's figures there")
    options = parser.parse_args(arguments)
    measured = Measured()
    machine = _machine()
    with tempfile.TemporaryDirectory() as folder:
        _say(f"training {TREES} trees x {LEAVES} leaves on {COLUMNS} columns")
        small, large = make_worlds(Path(folder))
        subjects = [
            prepare(small, max(SAMPLE, options.calls)),
            prepare(large, max(SAMPLE, options.calls // _FEWER)),
        ]
        with contextlib.ExitStack() as running:
            latencies = running.enter_context(latency.databases(subjects[0])) if "latency" in options.parts else {}
            rivals = _rivals(subjects, Path(folder), running) if "mlflow" in options.parts else {}
            drawn = {s.world.name: curved.with_curves(s.world) for s in subjects} if "curves" in options.parts else {}
            for number in range(options.rounds):
                phase = HISTORY + number * _PHASES
                for subject in subjects if {"decisions", "curves"} & set(options.parts) else ():
                    floor, name = _measure_floors(subject, phase, measured), subject.world.name
                    if "decisions" in options.parts:
                        _measure(subject, phase, measured, floor, rivals.get(name))
                    if name in drawn:
                        curved.measure(drawn[name], subject, measured, floor, _IN_FLIGHT, _WARM_UP)
                latency.measure(latencies, phase, measured)
                if "kernels" in options.parts:
                    propensities.measure(measured, max(options.calls // 10, 20))
                    planning.measure(measured, max(options.calls // 10, 50))
                _say(f"round {number + 1} of {options.rounds}")
    figures = measured.figures()
    print(to_markdown(figures, machine))
    if options.json is not None:
        options.json.write_text(to_json(figures, machine, {"rounds": options.rounds, "calls": options.calls}))
    failures = beyond_limits(figures)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _rivals(subjects: Sequence[Subject], folder: Path, running: contextlib.ExitStack) -> dict[str, Rival]:
    """Start `mlflow models serve`, one for all worlds, since they have one model; what each is to be asked."""
    _say("starting mlflow models serve")
    served = running.enter_context(mlflow_server(subjects[0].world, folder))
    return {subject.world.name: Rival(served, subject) for subject in subjects}


def _measure(subject: Subject, phase: int, measured: Measured, floor: float, rival: Rival | None) -> None:
    """Measure the service once, held against the floor."""
    rows = f"{subject.world.name} rows"
    with service(subject.world) as server:
        measured.add(START, "s", server.start_seconds)
        measured.add(START_CPU, "s CPU", server.start_cpu_seconds)
        server.load(subject.requests(phase, "warm", DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL)[:_WARM_UP], _IN_FLIGHT)
        bulk.measure(server, subject, phase, measured, _IN_FLIGHT)
        full = _measure_calls(server, subject, phase, measured, rows)
        measured.add(f"{RATIO}, {rows}", "x", full / floor)
        busy = _measure_throughput(server, subject, phase + _PHASES - 1, measured, rows)
        if rival is not None:
            _measure_rival(rival, busy, subject.calls, measured, rows)
        measured.add(f"{MEMORY}, {rows}", "MB", memory_megabytes(server.pid))


def _measure_floors(subject: Subject, phase: int, measured: Measured) -> float:
    """Measure what a decision is held against, and return it: the grpc.aio echo and raw scoring, in ms."""
    rows = f"{subject.world.name} rows"
    requests = subject.requests(phase, "echo", DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL)
    floors = {}
    for kind in ("sync", "aio"):
        with echo(kind, subject.answer_bytes) as server:
            server.load(requests[:_WARM_UP], _IN_FLIGHT)
            seconds = server.load(requests, _IN_FLIGHT).cpu_seconds
        floors[kind] = measured.add(f"echo of the same sizes, {kind}, {rows}", _COST, seconds * 1e3)
    measured.add(f"sync echo / grpc.aio echo, {rows}", "x", floors["sync"] / floors["aio"])
    plain, fast = _score(subject)
    measured.add(f"scoring as served, {rows}", _COST, fast * 1e3)
    measured.add(f"{SCORING}, {rows}", "x", fast / plain)
    return floors["aio"] + measured.add(f"raw scoring by LightGBM's C API, {rows}", _COST, plain * 1e3)


def _measure_calls(server: Running, subject: Subject, phase: int, measured: Measured, rows: str) -> float:
    """Measure each mode and view, and return what DRY_RUN FULL costs, in ms."""
    costs = []
    for mode, live_phases in (("DRY_RUN", 0), ("LIVE", 1)):
        for number, view in enumerate(("FULL", "BASIC")):
            requests = subject.requests(
                phase + number * live_phases,
                f"{mode}-{view}",
                DecisionMode.Value(f"DECISION_MODE_{mode}"),
                DecisionView.Value(f"DECISION_VIEW_{view}"),
            )
            seconds = server.load(requests, _IN_FLIGHT).cpu_seconds
            costs.append(measured.add(f"ChooseChannel {mode} {view}, {rows}", _COST, seconds * 1e3))
    return costs[0]


def _measure_throughput(server: Running, subject: Subject, phase: int, measured: Measured, rows: str) -> Load:
    """Measure how many live decisions a second are made and kept where many wait at a time, at what cost, and how long they wait."""
    busy = server.load(subject.requests(phase, "busy", DECISION_MODE_LIVE, DECISION_VIEW_BASIC), _BUSY)
    name = f"LIVE BASIC, {_BUSY} in flight, {rows}"
    measured.add(f"{name}: CPU", _COST, busy.cpu_seconds * 1e3)
    measured.add(f"{name}: throughput", "calls/s", subject.calls / busy.wall_seconds)
    measured.add(f"{name}: p50", "ms", busy.quantile(0.5) * 1e3)
    measured.add(f"{name}: p99", "ms", busy.quantile(0.99) * 1e3)
    return busy


def _measure_rival(rival: Rival, busy: Load, calls: int, measured: Measured, rows: str) -> None:
    """Measure `mlflow models serve` where as many wait at a time, in each form that it takes."""
    for form in FORMS:
        name = f"mlflow models serve, {form}, {_BUSY} in flight, {rows}"
        cpu, per_second = rival.load(form, _BUSY)
        measured.add(f"{name}: CPU", _COST, cpu * 1e3)
        measured.add(f"{name}: throughput", "calls/s", per_second)
        measured.add(f"{MLFLOW}, {form}, {rows}", "x", busy.cpu_seconds / cpu)
        measured.add(f"{THROUGHPUT}, {form}, {rows}", "x", calls / busy.wall_seconds / per_second)
    measured.add(f"memory of mlflow models serve, {rows}", "MB", rival.served.memory_megabytes())


def _score(subject: Subject) -> tuple[float, float]:
    """Return the CPU seconds in which LightGBM's C API scores one call's rows on one thread, and in which the service does, in turns."""
    booster = subject.world.booster()
    if any((booster.raw_scores(rows) != booster.by_lightgbm(rows)).any() for rows in subject.matrices):
        raise RuntimeError("the service scores otherwise than LightGBM")
    seconds = [0.0, 0.0]
    turns = max(subject.calls // SAMPLE, 4)
    for _ in range(turns):
        for which, score in enumerate((booster.by_lightgbm, booster.raw_scores)):
            began = time.thread_time()
            for rows in subject.matrices:
                score(rows)
            seconds[which] += time.thread_time() - began
    calls = turns * len(subject.matrices)
    return seconds[0] / calls, seconds[1] / calls


def _machine() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    libraries = ("grpcio", "protobuf", "numpy", "lightgbm")
    return {
        "machine": f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in libraries)]
        ),
        "model": f"{TREES} trees x {LEAVES} leaves, {COLUMNS} columns",
    }


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
