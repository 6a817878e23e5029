"""An experiment from beginning to end on the simulated retailer: a log, a bundle, a server, two variants over gRPC, and the known truth.

The control decides by a cascade written by hand, the other variant by the learned policy. Customers are drawn by the server, outcomes are
reported with the delays that they have in the simulated retailer. What each variant's sends were exactly worth is worked out beside it, from the
simulator's own law, so that the report can be held against it.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import grpc
from tqdm import tqdm

from models.context import Context
from models.errors import LogUnusable
from models.rules import read_rules
from service.store.store import Store
from training.dataset import read_dataset
from training.experiments.analysis import Analysis, analyse
from training.experiments.goals import track_goals
from training.experiments.people import read_people
from training.experiments.report import find_experiment, make_report, read_changes, summary, write_files
from training.fit import fit, save
from training.grow import Hyperparameters
from training.journal import write_outcomes
from training.registry import MlflowRegistry
from training.server import serving
from training.simulate import WINDOW
from training.world.clock import to_time
from training.world.log import KEY, log_customers, logged_visits
from training.world.money import GAP_HOURS, Bench, make_bench, write_bench_log
from training.world.protocol import Outcome, Reply, Step
from training.world.run import World
from training.world.scenarios import RULES_FILE
from training.world.served import ServedPolicy

NAME = "learned-policy"
CONTROL, TREATED = "by-hand", "learned"
_EXPERIMENT = """
[[experiments]]
name = "{name}"
start_time = {start}
end_time = {end}
window_days = {window_days}
success = ["net_value", "spend"]
guardrails = [{{ metric = "unsubscribe_rate", margin = 0.25 }}, {{ metric = "conversion", margin = 0.4 }}]
minimum_detectable_effect = 0.25

[[experiments.variants]]
name = "by-hand"
weight = 0.5
[experiments.variants.policy]
name = "rule_cascade"
[experiments.variants.cascade]
order = ["push", "email", "sms"]

[[experiments.variants]]
name = "learned"
weight = 0.5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Where a demonstration left its files, and what is true of it."""

    database_url: str
    rules_file: Path
    truth: "Truth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the simulator knows: exact expectations of what was sent, per customer whose window is over; money in units of the currency."""

    customers: dict[str, int]
    net_value: dict[str, float]
    """What sending added, by variant; orders that come anyway are not in it."""
    spend: dict[str, float]

    def difference(self, name: str) -> float:
        """Return what the learned variant adds to the one by hand."""
        found: dict[str, float] = getattr(self, name)
        return found[TREATED] - found[CONTROL]


@dataclass(slots=True)
class _Watched:
    """A policy that notes which variant each customer was first exposed to, and when."""

    inner: ServedPolicy
    progress: Callable[[int], object]
    name: str = "service"
    exposed: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def decide(self, context: Context) -> Reply:
        reply = self.inner.decide(context)
        answer = self.inner.answers.pop()
        for assigned in answer.experiments:
            self.exposed.setdefault(context.customer.key, (assigned.variant, context.decide_time))
        self.progress(context.step == 1)
        return reply

    def observe(self, outcome: Outcome) -> None:
        self.inner.observe(outcome)


def run_demo(
    folder: Path, *, log_decisions: int, decisions: int, customers: int, window_days: float, seed: int
) -> Demo:
    """Make a log, train on it, serve the experiment and act on it; everything is left in a folder, which must be new."""
    folder.mkdir(parents=True)
    url = f"sqlite:///{folder / 'demo.db'}"
    with tqdm(total=4, desc="simulate a log", unit=" steps", disable=None) as bar:
        bench = make_bench(seed, log_decisions, decisions, customers=customers)
        bar.update()
        bar.set_description("write it down")
        assert bench.log_world is not None  # the stationary scenario has one
        write_bench_log(bench, url)
        _write_visits(bench.log_world, url)
        bar.update()
        bar.set_description("train a bundle")
        complete = to_time(int(bench.log_world.messages.arrive[-1]) + GAP_HOURS)
        fitted = fit(
            read_dataset(url, WINDOW, as_of=complete), Hyperparameters(seed=seed), "demo", progress=lambda _: None
        )
        save(fitted, folder / "bundle", "demo")
        bar.update()
        bar.set_description("write the rules")
        rules_file = _write_rules(folder, bench, window_days)
        (folder / "identity.key").write_text(KEY.hex())
        bar.update()
    options = ["--rules-file", str(rules_file), "--database-url", url, "--bundle", str(folder / "bundle")]
    with (
        serving(options, folder / "service.log") as address,
        grpc.insecure_channel(address) as channel,
        tqdm(total=len(bench.world.messages), desc="decide over gRPC", unit=" messages", disable=None) as bar,
    ):
        served = ServedPolicy(channel, known_until=to_time(int(bench.log_world.messages.arrive[-1])))
        watched = _Watched(served, bar.update)
        result = bench.world.run(watched)
        served.flush()
    until = max(outcome.occur_time for outcome in result.outcomes)
    truth = _truth(bench, watched.exposed, result.steps, timedelta(days=window_days), until)
    return Demo(database_url=url, rules_file=rules_file, truth=truth)


def _write_visits(world: World, url: str) -> None:
    store = Store(url)
    try:
        write_outcomes(store, logged_visits(world, log_customers(world.people)))
    finally:
        store.close()


def _write_rules(folder: Path, bench: Bench, window_days: float) -> Path:
    arrive = bench.world.messages.arrive
    block = _EXPERIMENT.format(
        name=NAME,
        start=to_time(int(arrive[0])).isoformat(),
        end=(to_time(int(arrive[-1])) + timedelta(days=1)).isoformat(),
        window_days=window_days,
    )
    path = folder / "rules.toml"
    path.write_text(RULES_FILE.read_text(encoding="utf-8") + block, encoding="utf-8")
    return path


def _truth(
    bench: Bench,
    exposed: dict[str, tuple[str, datetime]],
    steps: Sequence[Step],
    window: timedelta,
    until: datetime,
) -> Truth:
    closed = {key: found for key, found in exposed.items() if found[1] + window <= until}
    customers = {name: sum(variant == name for variant, _ in closed.values()) for name in (CONTROL, TREATED)}
    net, spend = dict.fromkeys(customers, 0.0), dict.fromkeys(customers, 0.0)
    for step in steps:
        found = closed.get(step.context.customer.key)
        if found is not None and found[1] <= step.context.decide_time < found[1] + window:
            net[found[0]] += step.gain.net
            spend[found[0]] += step.gain.spend
    return Truth(
        customers=customers,
        net_value={name: net[name] / max(count, 1) for name, count in customers.items()},
        spend={name: spend[name] / max(count, 1) for name, count in customers.items()},
    )


def demo_command(options: argparse.Namespace) -> str:
    """Run the demonstration, report it, hold the report against the truth, and return what to say.

    Raises
    ------
    LogUnusable: the folder is there already.
    """
    folder: Path = options.folder
    if folder.exists():
        raise LogUnusable(f"{folder} is there already; remove it, or name another with --folder")
    demo = run_demo(
        folder,
        log_decisions=options.log,
        decisions=options.decisions,
        customers=options.customers,
        window_days=options.window_days,
        seed=options.seed,
    )
    rules = read_rules(demo.rules_file)
    experiment = find_experiment(rules, NAME, demo.database_url, None)
    analysis = analyse(read_people(demo.database_url, experiment, rules), read_changes(demo.database_url, NAME))
    log = str(folder / "demo.db")
    report = make_report(analysis, rules, log, track_goals(demo.database_url, rules))
    write_files(folder / "report", report)
    mlflow = f"sqlite:///{folder / 'mlflow.db'}"
    run_id = MlflowRegistry(mlflow, "ab-reports", folder / "artifacts").keep_report(f"report {NAME}", report)
    return "\n".join(
        [
            summary(analysis, rules, log),
            *against_truth(analysis, demo.truth),
            f"page {folder / 'report' / 'report.html'}, in Russian {folder / 'report' / 'report.ru.html'}",
            f"run {run_id}; see it with: mlflow ui --backend-store-uri {mlflow}",
        ]
    )


def against_truth(analysis: Analysis, truth: Truth) -> list[str]:
    """Return how the report's differences lie to the simulator's."""
    (treatment,) = analysis.treatments
    lines = ["  the simulator's own expectation of the difference per customer:"]
    for name in ("net_value", "spend"):
        comparison, known = treatment.comparisons[name], truth.difference(name)
        is_covered = comparison.always_low <= known <= comparison.always_high
        lines.append(f"  {name:20} {known:+.4g}: {'inside' if is_covered else 'OUTSIDE'} the report's interval")
    return lines
