"""`python -m tests.benchmarks.commits`: what sharing commits earns on each engine, beside a commit for each row on the same disk.

Rows are outcomes, the widest that one caller writes at a time. Everything is told beside what was measured in the same run: rows a second beside those of a
commit for each row, latency beside one `fdatasync`, and the writer's own CPU for each row, without its callers'.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.store.store import OutcomeRow, Store, Unit
from tests.postgres import postgres_server

_NUMBERS = itertools.count()


def outcome_row() -> OutcomeRow:
    return OutcomeRow(
        event_id=f"event-{next(_NUMBERS)}",
        digest=b"0" * 32,
        decision_id="019a4ee5-0000-7000-8000-000000000001",
        step=1,
        customer_key="0" * 32,
        type="sent",
        occur_time=1_762_246_800_000_000,
        receive_time=1_762_246_800_000_000,
        status="accepted",
        value_micros=None,
        cost_micros=None,
        machine_generated=False,
        csat=None,
        nps=None,
    )


def _insert(unit: Unit) -> None:
    unit.insert_outcome(outcome_row())


def sync_seconds(folder: Path, rounds: int = 100) -> float:
    """Return the median time of one fdatasync of a page, on the disk that has the folder."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(rounds):
            file.write(b"x" * 8192)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def rows_alone(store: Store, count: int) -> tuple[float, float]:
    """Return rows a second, and the median latency, of one caller: a commit for each row."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        store.write(_insert)
        times.append(time.perf_counter() - began)
    return count / sum(times), statistics.median(times)


def rows_together(store: Store, callers: int, count: int) -> tuple[float, float]:
    """Return rows a second, and the median latency, of many callers who each wait for their commit."""

    def call(_: int) -> list[float]:
        times = []
        for _ in range(count // callers):
            began = time.perf_counter()
            store.write(_insert)
            times.append(time.perf_counter() - began)
        return times

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        times = [t for found in pool.map(call, range(callers)) for t in found]
        seconds = time.perf_counter() - began
    return len(times) / seconds, statistics.median(times)


def rows_of_groups(store: Store, group: int, rounds: int) -> tuple[float, float]:
    """Return rows a second that the writer commits in full groups, and its CPU a row: one unit hands in a whole group's inserts."""

    def insert_all(unit: Unit) -> None:
        for _ in range(group):
            _insert(unit)

    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(rounds):
        store.write(insert_all)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return group * rounds / seconds, cpu / (group * rounds)


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A new database of each engine, in the same folder's file system."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        yield {"SQLite": f"sqlite:///{folder}/store.db", "PostgreSQL": server.make_migrated()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.commits", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the shared part (default: 20000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that each is measured; the median is told (default: 3)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sync = sync_seconds(Path(folder))
    print(f"fdatasync {sync * 1e3:.2f} ms; medians of {options.rounds} rounds")
    print(f"{'engine':<12}{'callers':>8}{'rows/s':>10}{'x alone':>9}{'latency, fdatasyncs':>21}{'CPU us/row':>12}")
    with databases() as urls:
        for engine, url in urls.items():
            store = Store(url)
            try:
                _measure(engine, store, sync, options.rows, options.rounds)
            finally:
                store.close()


def _measure(engine: str, store: Store, sync: float, rows: int, rounds: int) -> None:
    alone = [rows_alone(store, 200) for _ in range(rounds)]
    base, latency = (statistics.median(column) for column in zip(*alone, strict=True))
    print(f"{engine:<12}{1:>8}{base:>10.0f}{1:>9.1f}{latency / sync:>21.1f}{'':>12}")
    for callers in (16, 64, 256):
        found = [rows_together(store, callers, rows) for _ in range(rounds)]
        rate, latency = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{engine:<12}{callers:>8}{rate:>10.0f}{rate / base:>9.1f}{latency / sync:>21.1f}{'':>12}")
    found = [rows_of_groups(store, 64, max(rows // 64, 1)) for _ in range(rounds)]
    rate, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{engine:<12}{'64 a go':>8}{rate:>10.0f}{rate / base:>9.1f}{'':>21}{cpu * 1e6:>12.1f}")


if __name__ == "__main__":
    main()
