"""`python -m training.world.log_lengths`: what a longer log is worth, so what is lost where only some of its customers are taken (`train --most-decisions`).

One log of random decisions is made in the simulated retailer; models are trained on samples of it, and each decides the same messages to other customers, whose truth is exact.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from models.bundle import load_bundle
from service.store.identity import load_keys
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.world.make_log import LogPlan, make_log, plan_world
from training.world.policies import ServiceCore

WINDOW = timedelta(hours=72)
MESSAGES_EACH = 10 / 3
"""Of a customer in the log, as in the usual one."""
_PER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was learned from so many decisions: log loss of orders on the later ones, and net value for each of the messages decided, in roubles."""

    decisions: int
    loss: float
    net: float


def learn(decisions: int, most: Sequence[int], messages: int, seed: int) -> list[Learned]:
    """Train on samples of at most so many decisions of one log, and let each model decide the same messages."""
    plan = LogPlan(customers=round(decisions / MESSAGES_EACH), decisions=decisions, seed=seed)
    world = plan_world(LogPlan(customers=round(messages / MESSAGES_EACH), decisions=messages, seed=seed + 1000))
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/log.db"
        store = Store(url)
        try:
            with tqdm(total=decisions, desc="simulate", unit=" decisions", disable=None) as bar:
                make_log(plan, store, load_keys(store, url).current, None, bar.update)
        finally:
            store.close()
        for number in tqdm(most, desc="learn", unit=" models", disable=None):
            data = read_dataset(url, WINDOW, with_early=True, most=number)
            fitted = fit(data, Hyperparameters(seed=seed), "world", lambda _: None)
            folder = Path(scratch) / f"bundle-{number}"
            save(fitted, folder, "world")
            earned = world.run(ServiceCore(world.rules, load_bundle(folder), is_adaptive=False)).expected
            found.append(
                Learned(
                    decisions=len(data.with_early()),
                    loss=fitted.metrics["later.logloss"],
                    net=earned.net / messages,
                )
            )
    return found


def table(of_seeds: Sequence[Sequence[Learned]]) -> str:
    """Return means over seeds as Markdown, and each seed's net value as a share of that by the longest log."""
    lines = [
        f"| decisions | net value, RUB per {_PER:,} messages | of that by the longest log, by seed |",
        "|---:|---:|---|",
    ]
    for sizes in zip(*of_seeds, strict=True):
        shares = [f"{one.net / found[-1].net:.1%}" for one, found in zip(sizes, of_seeds, strict=True)]
        decisions = sum(one.decisions for one in sizes) / len(sizes)
        net = _PER * sum(one.net for one in sizes) / len(sizes)
        lines.append(f"| {decisions:,.0f} | {net:,.0f} | {', '.join(shares)} |")
    return "\n".join(lines)


def main() -> None:
    """Learn and print."""
    parser = argparse.ArgumentParser(prog="python -m training.world.log_lengths", description=__doc__)
    parser.add_argument("--decisions", type=int, default=200_000, help="of the log (default: 200000)")
    parser.add_argument(
        "--most",
        type=int,
        nargs="+",
        default=[6_250, 12_500, 25_000, 50_000, 100_000, 200_000],
        help="of the samples, rising",
    )
    parser.add_argument("--messages", type=int, default=10_000, help="that each model decides (default: 10000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    print(table([learn(options.decisions, options.most, options.messages, seed) for seed in options.seeds]))


if __name__ == "__main__":
    main()
