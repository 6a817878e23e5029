"""`python -m training.world.replayed`: how near a replay comes to what policies truly earn and cost in the simulated retailer.

A log of random decisions is made and a bundle trained on it; policies are replayed on that log with that bundle, then let act on the very same messages in the world itself, with
the same decision core. The replay knows the log alone.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.bundle import load_bundle
from service.store.identity import load_keys
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.replay import replay
from training.replay_log import open_replay_log
from training.replay_report import Interval, summarise
from training.targets import LOGGED, make_target
from training.world.make_log import CUSTOMERS, DECISIONS, LogPlan, make_log, plan_world
from training.world.policies import ServiceCore

_WINDOW = timedelta(hours=72)
_PER = 1000
POLICIES = (LOGGED, "greedy", "inverse_gap", "rule_cascade")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One policy as it was replayed, and as it is in truth; money in units of the currency for each message."""

    policy: str
    net: Interval
    cost: Interval
    true_net: float
    true_cost: float


def compare(plan: LogPlan, policies: Sequence[str] = POLICIES) -> list[Compared]:
    """Make a log, replay policies on it, and let them act in the world."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/log.db"
        store = Store(url)
        try:
            with tqdm(total=plan.decisions, desc="simulate", unit=" decisions", disable=None) as bar:
                made = make_log(plan, store, load_keys(store, url).current, None, bar.update)
        finally:
            store.close()
        fitted = fit(
            read_dataset(url, _WINDOW, with_early=True), Hyperparameters(seed=plan.seed), "world", lambda _: None
        )
        save(fitted, Path(scratch) / "bundle", "world")
        bundle = load_bundle(Path(scratch) / "bundle")
        world, log = plan_world(plan), open_replay_log(url, _WINDOW, None, None, None)
        rules = world.rules
        found = []
        targets = [make_target(policy, rules, bundle) for policy in policies]
        for policy, target in zip(policies, targets, strict=True):
            with tqdm(total=len(log), desc=f"replay {policy}", unit=" messages", disable=None) as bar:
                found.append(replay(log, target, bundle, rules, plan.seed, bar.update))
    replays = summarise(found, rules.harm.unsubscribe / 1e6, np.random.default_rng(plan.seed), [None] * len(found))
    compared = []
    for policy, target, figures in zip(policies, targets, replays.figures, strict=True):
        true_net, true_cost = made.net, made.spend
        if target.rules is not None:
            expected = world.run(ServiceCore(target.rules, bundle, is_adaptive=False)).expected
            true_net, true_cost = expected.net, expected.spend
        compared.append(
            Compared(
                policy=policy,
                net=figures["net"],
                cost=figures["cost"],
                true_net=true_net / made.messages,
                true_cost=true_cost / made.messages,
            )
        )
    return compared


def table(compared: Sequence[Compared]) -> str:
    """Return the comparison as Markdown, for each 1000 messages."""
    lines = [
        "| policy | net value, replayed | in truth | cost, replayed | in truth |",
        "|---|---:|---:|---:|---:|",
    ]
    for one in compared:
        lines.append(
            f"| {one.policy} | {_figure(one.net)} | {_PER * one.true_net:,.0f} | {_figure(one.cost)} | {_PER * one.true_cost:,.0f} |"
        )
    return "\n".join(lines)


def _figure(found: Interval) -> str:
    return f"{_PER * found.value:,.0f} ({_PER * found.low:,.0f} to {_PER * found.high:,.0f})"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m training.world.replayed", description=__doc__)
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--steps", type=int, default=1, choices=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = LogPlan(customers=options.customers, decisions=options.decisions, steps=options.steps, seed=options.seed)
    print(table(compare(plan)))


if __name__ == "__main__":
    main()
