"""A bundle trained on the log of a world whose truth is known, and that world's next weeks."""

from dataclasses import dataclass, replace
from pathlib import Path

from models.bundle import Bundle
from training.world.messages import make_messages
from training.world.money import GAP_HOURS, Bench, train_bundle
from training.world.people import make_population
from training.world.policies import Uniform
from training.world.run import World
from training.world.scenarios import NEVER, make_scenario, world_rules

CUSTOMERS, LOGGED, ASKED, SEED = 3000, 10_000, 1500, 4
LOG_HOURS, ASKED_HOURS = 40 * 24, 10 * 24
ANNOYANCE = 4.0
"""How much more easily these customers are annoyed, so that a small log has some eighty unsubscribes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A bundle, and the world of the messages that come after its log."""

    bundle: Bundle
    world: World


def train(folder: Path) -> Trained:
    """Let the logging policy act for weeks, train on its log as `training train` does, and return what comes next."""
    people = make_population(CUSTOMERS, SEED)
    people = replace(people, annoyance=ANNOYANCE * people.annoyance)
    rules, plain = world_rules(), make_scenario("stationary", NEVER)
    messages = make_messages(people, LOGGED, 0, LOG_HOURS, SEED)
    log_world = World(people, messages, plain, rules, SEED)
    log, start = log_world.run_to(Uniform(log_world.rules))
    asked = make_messages(people, ASKED, LOG_HOURS + GAP_HOURS, ASKED_HOURS, SEED)
    world = World(people, asked, plain, rules, SEED, start)
    bench = Bench(people=people, rules=rules, world=world, log=log, log_world=log_world, change_hour=NEVER)
    return Trained(bundle=train_bundle(bench, SEED, folder / "bundle"), world=world)
