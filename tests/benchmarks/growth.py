"""`python -m tests.benchmarks.growth [--plot docs/growth.svg]`: CPU per decision against what may grow: candidates, trees, caps, experiments, prices, customers,
the log.

Candidates, trees and caps are measured in this process, experiments and prices by a service, the store by one on a database that grows from one measurement to the next. To each a power
is fitted, cost ~ size^p, by least squares of the logarithms; a p beyond 1.1 fails the command. What is not measured, 10^7 customers and a log of
10^8 decisions, follows from cost = a + b log(size), the growth of a B-tree, fitted to what is, and is printed as such.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np

from models.booster import Booster
from models.bundle import RESPONSE, load_bundle
from models.decide import decide
from models.rules import Rules, read_rules
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC
from service.store.profile import Profile
from service.store.store import DecisionRow, Store, Unit
from tests.benchmarks.processes import service
from tests.benchmarks.subject import HISTORY, Subject, prepare
from tests.benchmarks.workload import World, make_worlds

MOST_POWER = 1.1
_CALLS = 150
_REPEATS = 5
_UNIT = 1000
"""Rows of one commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """CPU in ms at each size of one thing."""

    name: str
    sizes: tuple[int, ...]
    costs: tuple[float, ...]
    beyond: tuple[int, ...] = ()
    """Sizes to say the cost of without measuring them."""

    @property
    def power(self) -> float:
        """Return p of cost ~ size^p."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.costs), 1)[0])

    def extrapolated(self) -> dict[int, float]:
        """Return a + b log(size) at the sizes beyond."""
        slope, constant = np.polyfit(np.log(self.sizes), self.costs, 1)
        return {size: float(constant + slope * math.log(size)) for size in self.beyond}


def _cost(call: Callable[[int], object]) -> float:
    """Return the median over repeats of the mean CPU of a call, in ms."""
    call(0)
    found = []
    for _ in range(_REPEATS):
        began = time.thread_time()
        for number in range(_CALLS):
            call(number)
        found.append((time.thread_time() - began) / _CALLS * 1e3)
    return statistics.median(found)


def _decisions(subject: Subject, rules: Rules) -> tuple[int, float]:
    """Return how many actions decisions under these rules have, and what they cost."""
    bundle, contexts = load_bundle(subject.world.bundle), subject.contexts
    options = contexts[0].options
    wide = [dataclasses.replace(context, options=options) for context in contexts]
    found = decide(wide[0], rules, bundle).distribution
    assert found is not None  # the rules let every channel be used
    return len(found.table), _cost(lambda number: decide(wide[number % len(wide)], rules, bundle))


def of_candidates(subject: Subject) -> Growth:
    """Make slots ever closer."""
    found = []
    for hours in (6, 3, 1, 0.5, 0.25):
        found.append(_decisions(subject, _with_rules(subject.world, f"slot_hours = {hours}")))
    sizes, costs = zip(*found, strict=True)
    return Growth(name="candidate actions", sizes=sizes, costs=costs)


def of_caps(subject: Subject) -> Growth:
    """Add caps that customers are well within, but that have to be counted."""
    sizes, costs = (1, 4, 16, 64, 256), []
    for count in sizes:
        caps = [f'[[caps]]\nname = "more-{i}"\nlimit = 3\nwindow_hours = {24 + i}\n' for i in range(count)]
        costs.append(_decisions(subject, _with_rules(subject.world, "slot_hours = 3", caps))[1])
    return Growth(name="rules: caps", sizes=sizes, costs=tuple(costs))


def of_trees(subject: Subject) -> Growth:
    """Score one customer's rows with ever more of the same trees."""
    model = lgb.Booster(model_str=(subject.world.bundle / RESPONSE).read_text())
    costs, sizes = [], (19, 38, 75, 150, 300)
    for trees in sizes:
        costs.append(_scoring(Booster(model.model_to_string(num_iteration=trees)), subject))
    return Growth(name=f"trees (scoring {len(subject.matrices[0])} rows)", sizes=sizes, costs=tuple(costs))


def _scoring(booster: Booster, subject: Subject) -> float:
    rows = subject.matrices
    return _cost(lambda number: booster.raw_scores(rows[number % len(rows)]))


def of_experiments(subject: Subject) -> Growth:
    """Run ever more experiments at a time, of layers of their own, so that every customer is part of all."""
    return _of_tables(subject, "experiments", (1, 4, 16, 64, 256), lambda number: _EXPERIMENT.format(number=number))


def of_prices(subject: Subject) -> Growth:
    """Add ever more lines to the price book, of other days and countries."""

    def line(number: int) -> str:
        country = chr(65 + number // 26 % 26) + chr(65 + number % 26)
        return _PRICE.format(country=country, day=date(2000, 1, 1) + timedelta(days=number // 676))

    return _of_tables(subject, "prices", (10, 100, 1000, 10_000), line)


def _of_tables(subject: Subject, name: str, sizes: tuple[int, ...], table: Callable[[int], str]) -> Growth:
    """Measure a service whose rules have ever more tables of a kind."""
    original, costs = subject.world.rules_file.read_text(), []
    requests = subject.requests(HISTORY, name, DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC)
    try:
        for count in sizes:
            subject.world.rules_file.write_text("\n".join([original, *map(table, range(count))]))
            with service(subject.world) as server:
                server.load(requests, 1)
                costs.append(statistics.median(server.load(requests, 1).cpu_seconds for _ in range(_REPEATS)) * 1e3)
    finally:
        subject.world.rules_file.write_text(original)
    return Growth(name=f"rules: {name}", sizes=sizes, costs=tuple(costs))


_PRICE = """
[[prices]]
channel = "sms"
country = "{country}"
start_date = {day}
price = "5.30"
"""
_EXPERIMENT = """
[[experiments]]
name = "experiment-{number}"
layer = "layer-{number}"
start_time = 2026-01-01T00:00:00Z
end_time = 2030-01-01T00:00:00Z
variants = [{{ name = "control", weight = 0.5 }}, {{ name = "other", weight = 0.5 }}]
"""


def of_store(subject: Subject, most: int, fill: Callable[[Store, range], None], name: str, beyond: int) -> Growth:
    """Measure a service on a database that is filled up step by step."""
    sizes = [size for size in (10**k for k in range(3, 9)) if size <= most]
    requests = subject.requests(HISTORY, name, DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC)
    costs, before = [], 0
    for size in sizes:
        store = Store(f"sqlite:///{subject.world.database}")
        try:
            fill(store, range(before, size))
        finally:
            store.close()
        before = size
        with service(subject.world) as server:
            server.load(requests, 1)
            costs.append(statistics.median(server.load(requests, 1).cpu_seconds for _ in range(_REPEATS)) * 1e3)
        print(f"{name}: {size} measured", file=sys.stderr, flush=True)
    return Growth(name=name, sizes=tuple(sizes), costs=tuple(costs), beyond=(beyond,))


def add_customers(store: Store, numbers: range) -> None:
    """Add people with one identity each."""

    def add(work: Unit, number: int) -> None:
        identity = hashlib.sha256(f"other-{number}".encode()).digest()
        work.insert_customer(identity.hex()[:32], Profile(), 1)
        work.insert_identities(identity.hex()[:32], [identity])

    _in_units(store, numbers, add)


def log_decisions(like: DecisionRow) -> Callable[[Store, range], None]:
    """Return what adds decisions like this one to the log, of people and requests of their own."""

    def add(work: Unit, number: int) -> None:
        name = f"other-{number}"
        work.insert_decision(dataclasses.replace(like, decision_id=name, request_id=name, customer_key=name))

    return lambda store, numbers: _in_units(store, numbers, add)


def _in_units(store: Store, numbers: range, add: Callable[[Unit, int], None]) -> None:
    for first in range(numbers.start, numbers.stop, _UNIT):

        def unit(work: Unit, first: int = first) -> None:
            for number in range(first, min(first + _UNIT, numbers.stop)):
                add(work, number)

        store.write(unit)


def _with_rules(world: World, timing: str, caps: Sequence[str] = ()) -> Rules:
    head, _ = world.rules_file.read_text().split("[timing]")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(head + "".join(caps) + f"[timing]\n{timing}\n")
        file.flush()
        return read_rules(Path(file.name))


def measure(most_customers: int, most_decisions: int) -> Iterator[Growth]:
    """Measure one thing after the other."""
    with tempfile.TemporaryDirectory() as folder:
        small, _ = make_worlds(Path(folder))
        subject = prepare(small, _CALLS)
        yield of_candidates(subject)
        yield of_trees(subject)
        yield of_caps(subject)
        yield of_experiments(subject)
        yield of_prices(subject)
        store = Store(f"sqlite:///{small.database}")
        row = store.read(lambda reader: reader.find_request(f"history-{HISTORY - 1}-0"))
        store.close()
        assert row is not None  # subjects are made with a history
        yield of_store(subject, most_customers, add_customers, "customers in the store", 10**7)
        yield of_store(subject, most_decisions, log_decisions(row), "decisions in the log", 10**8)


def plot(found: Sequence[Growth], path: Path) -> None:
    """Draw each growth with its power."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "growth"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found), 2.9), layout="constrained")
    for axis, growth in zip(axes, found, strict=True):
        axis.loglog(growth.sizes, growth.costs, "o-", label="measured")
        if growth.beyond:
            further = growth.extrapolated()
            axis.loglog(list(further), list(further.values()), "x", label="a + b log(size)")
        linear = growth.costs[-1] * np.array(growth.sizes) / growth.sizes[-1]
        axis.loglog(growth.sizes, linear, ":", color="grey", label="linear")
        axis.set(
            title=f"{growth.name}\ncost ~ size^{growth.power:.2f}", ylim=(min(growth.costs) / 3, max(growth.costs) * 3)
        )
        axis.title.set_fontsize(9)
        for ticks, values in (
            (axis.xaxis, (*growth.sizes, *growth.beyond)),
            (axis.yaxis, {growth.costs[0], max(growth.costs)} if growth.power > 0.1 else {max(growth.costs)}),
        ):
            ticks.set_ticks(
                sorted(values), [f"{value:.3g}".replace("e+0", "e") for value in sorted(values)], fontsize=7
            )
            ticks.set_ticks([], minor=True)
    axes[0].set_ylabel("CPU, ms")
    axes[-1].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Run the command; 1 where something grows faster than its size."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__)
    parser.add_argument("--customers", type=int, default=10**6, help="most customers in the store")
    parser.add_argument("--decisions", type=int, default=10**5, help="most decisions in the log")
    parser.add_argument("--plot", type=Path, help="draw the plot there, as SVG")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = []
    for growth in measure(options.customers, options.decisions):
        found.append(growth)
        points = ", ".join(f"{size:,}: {cost:.3g}" for size, cost in zip(growth.sizes, growth.costs, strict=True))
        further = "".join(f"; by a + b log(size), {size:,}: {cost:.3g}" for size, cost in growth.extrapolated().items())
        print(f"{growth.name}: ms CPU at {points}{further}; cost ~ size^{growth.power:.2f}", flush=True)
    if options.plot is not None:
        plot(found, options.plot)
    if options.json is not None:
        figures = [dataclasses.asdict(growth) | {"power": growth.power} for growth in found]
        options.json.write_text(json.dumps(figures, indent=1))
    failures = [growth for growth in found if growth.power > MOST_POWER]
    for growth in failures:
        print(f"{growth.name}: cost ~ size^{growth.power:.2f} is beyond size^{MOST_POWER}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
