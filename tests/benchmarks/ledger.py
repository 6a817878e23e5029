"""`python -m tests.benchmarks.ledger`: what leases of budget save replicas that share one ledger.

Each replica is a process with a store of its own on one PostgreSQL, which is asked for a steady number of reservations a second by callers who each wait
for their commit. A reservation is a unit of work with what a decision does to its budget, and a wide row in the place of the decision. With "lock"
each unit reserves under the ledger's lock, so that commits of replicas follow one another; with "leases" they reserve out of leases, as the
service does. Latency is from when a reservation was due, so that a replica that falls behind is seen to.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from models.record import to_micros
from models.rules import Budget, read_rules
from service.ledger import Hints, LeaseShort, Ledger, charge, key_of, ledger_of, take
from service.settings import DEFAULT_RULES
from service.store.store import ReservationRow, Store, Unit
from tests.benchmarks.commits import outcome_row
from tests.postgres import postgres_server

_CALLERS = 48
_NOW = datetime(2026, 11, 4, 9, tzinfo=UTC)
_PRICE = 3_000_000
_WARM_SECONDS = 1.0
_RULES = read_rules(DEFAULT_RULES)
_BUDGET = Budget(name="sms", amount=10**13, period="month", channel="sms")


def reserve_one(store: Store, name: str, ledger: Ledger, hints: Hints, now: datetime) -> None:
    """Reserve the price of a send as a decision does."""

    def unit(work: Unit, using: Ledger) -> None:
        if using.is_held:
            hints.note(charge(work, _BUDGET, _RULES, now, using, _PRICE, _PRICE))
        else:
            take(work, _BUDGET.name, key_of(_BUDGET, _RULES, now), to_micros(now), using, _PRICE, _PRICE)
        work.insert_outcome(replace(outcome_row(), event_id=name))
        work.insert_reservation(
            ReservationRow(
                decision_id=name,
                step=1,
                budget=_BUDGET.name,
                period_start=key_of(_BUDGET, _RULES, now),
                price_micros=_PRICE,
                reserved_micros=_PRICE,
                committed_micros=0,
                expire_time=to_micros(now),
            )
        )

    if not ledger.is_held and hints.suffice([_BUDGET.name], to_micros(now)):
        with contextlib.suppress(LeaseShort):
            store.write(lambda work: unit(work, ledger))
            return
    store.write(lambda work: unit(work, ledger.held()), ledger.held().locks)


def replica_latencies(
    url: str, replica: int, rate: float, seconds: float, start: float, *, has_leases: bool
) -> list[float]:
    """Reserve at a steady rate from a moment on, and return how long after it was due each reservation was committed, in seconds."""
    store = Store(url)
    ledger, hints = ledger_of(store) if has_leases else Ledger(), Hints()
    numbers, guard = itertools.count(), threading.Lock()
    times: list[float] = []

    def call() -> None:
        while True:
            with guard:
                number = next(numbers)
            due = start + number / rate
            if due > start + seconds:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            now = _NOW + timedelta(seconds=due - start)
            reserve_one(store, f"{replica:04x}-{number:012x}", ledger, hints, now)
            if due > start + _WARM_SECONDS:
                times.append(time.monotonic() - due)

    try:
        with ThreadPoolExecutor(_CALLERS) as pool:
            for done in [pool.submit(call) for _ in range(_CALLERS)]:
                done.result()
    finally:
        store.close()
    return times


def latencies(url: str, replicas: int, rate: float, seconds: float, *, has_leases: bool) -> list[float]:
    """Return the latencies of all replicas at work side by side, in seconds, sorted."""
    with multiprocessing.get_context("spawn").Pool(replicas) as pool:
        pool.map(abs, range(replicas), chunksize=1)
        start = time.monotonic() + 2.0
        works = [
            pool.apply_async(replica_latencies, (url, n, rate, seconds, start), {"has_leases": has_leases})
            for n in range(replicas)
        ]
        return sorted(t for work in works for t in work.get())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ledger", description=__doc__)
    parser.add_argument(
        "--replicas", type=int, nargs="+", default=[1, 2, 4, 8], help="how many processes (default: 1 2 4 8)"
    )
    parser.add_argument("--rate", type=float, default=200, help="reservations a second of each (default: 200)")
    parser.add_argument("--seconds", type=float, default=8, help="how long each measurement takes (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are told (default: 3)")
    options = parser.parse_args(arguments)
    print(f"{options.rate:g} reservations a second of each replica, medians of {options.rounds} rounds")
    print(f"{'replicas':>8}{'ledger':>8}{'done/s':>9}{'p50, ms':>9}{'p99, ms':>9}")
    for replicas in options.replicas:
        found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for has_leases in (False, True):
                with postgres_server() as server:
                    took = latencies(
                        server.make_migrated(), replicas, options.rate, options.seconds, has_leases=has_leases
                    )
                measured = options.seconds - _WARM_SECONDS
                found[has_leases].append((len(took) / measured, took[len(took) // 2], took[int(0.99 * len(took))]))
        for has_leases, rows in found.items():
            rate, p50, p99 = (statistics.median(column) for column in zip(*rows, strict=True))
            name = "leases" if has_leases else "lock"
            print(f"{replicas:>8}{name:>8}{rate:>9.0f}{p50 * 1e3:>9.1f}{p99 * 1e3:>9.1f}")


if __name__ == "__main__":
    main()
