"""The world of the money table: a log of the logging policy, the online part that begins where it ended, and a bundle trained on the log."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle, load_bundle
from models.rules import Rules
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.journal import write_log
from training.simulate import WINDOW
from training.starter import make_starter
from training.world.clock import to_time
from training.world.log import log_customers, logged_decisions
from training.world.messages import make_messages
from training.world.people import Population, make_population
from training.world.policies import Uniform
from training.world.protocol import Result, Start
from training.world.run import World
from training.world.scenarios import NEVER, ScenarioName, begin_hour, make_scenario, world_rules, zone_shares

DECISIONS_PER_DAY = 480
CUSTOMERS = 6000
GAP_HOURS = 96
"""Between log and online part, so that the log's windows are closed when training reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A world ready to be acted on: the log of the logging policy, and the online part that begins where it ended."""

    people: Population
    rules: Rules
    world: World
    log: Result | None
    log_world: World | None
    change_hour: int


def make_bench(
    seed: int,
    log_decisions: int = 20_000,
    online_decisions: int = 12_000,
    scenario: ScenarioName = "stationary",
    customers: int = CUSTOMERS,
    log_steps: int = 1,
) -> Bench:
    """Make a world, run the logging policy on its first part, and begin the second where it ended.

    The scenario's change comes at midnight after a third of the online part.
    """
    people, rules = make_population(customers, seed, zone_shares(scenario)), world_rules()
    plain = make_scenario("stationary", NEVER)
    is_cold = scenario == "cold_start"
    log_hours = 0 if is_cold else _days(log_decisions) * 24
    online_hours = _days(online_decisions) * 24
    before_change = max(1, online_hours // 24 // 3) * 24
    begin = begin_hour(scenario, log_hours + (0 if is_cold else GAP_HOURS), before_change)
    change = begin + before_change
    start, log, log_world = Start(), None, None
    if not is_cold:
        messages = make_messages(people, log_decisions, 0, log_hours, seed)
        log_world = World(people, messages, plain, rules, seed)
        log, start = log_world.run_to(Uniform(log_world.rules, log_steps))
    online = make_messages(people, online_decisions, begin, online_hours, seed)
    world = World(people, online, make_scenario(scenario, change), rules, seed, start)
    return Bench(people=people, rules=rules, world=world, log=log, log_world=log_world, change_hour=change)


def _days(decisions: int) -> int:
    return max(2, -(-decisions // DECISIONS_PER_DAY))


def write_bench_log(bench: Bench, url: str) -> int:
    """Append the bench's log to a decision log, and return how many decisions it has: 0 where the scenario has no log."""
    if bench.log is None or bench.log_world is None:
        return 0
    store = Store(url)
    try:
        decisions = logged_decisions(bench.log_world, bench.log)
        return write_log(store, decisions, log_customers(bench.people))
    finally:
        store.close()


def train_bundle(bench: Bench, seed: int, folder: Path) -> Bundle:
    """Train a bundle on the bench's log through the service's own store, data set and fit, into a folder; without a log, the starter bundle."""
    if bench.log is None:
        make_starter(folder, bench.rules)
        return load_bundle(folder)
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/log.db"
        write_bench_log(bench, url)
        assert bench.log_world is not None  # it has a log
        complete = to_time(int(bench.log_world.messages.arrive[-1]) + GAP_HOURS)
        data = read_dataset(url, WINDOW, as_of=complete)
        fitted = fit(data, Hyperparameters(seed=seed), "world", progress=lambda _: None)
    save(fitted, folder, "world")
    return load_bundle(folder)
