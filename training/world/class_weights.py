"""`python -m training.world.class_weights`: whether weighting rare orders makes a better model of them, in the simulated retailer.

One model of P(order) is grown with orders weighted as the others (none), by the root of how many fewer they are (root), or so that both weigh alike (balanced); trees are stopped by the
area under the curve where there are weights, since the weighted loss is not that of the later part. Weights move every probability, so they are undone in two ways: by their own factor, the
logit less log w, and by the calibration that training does anyway (slope and intercept of the logit on the later part). Net value is what the service earns in truth with the calibrated model alone,
deciding messages to other customers.
"""

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.booster import Booster
from models.bundle import Bundle, Description
from models.features import NO_SEND
from service.store.identity import load_keys
from service.store.store import Store
from training.boosting import LOCAL, Chosen, Rows
from training.dataset import Dataset, read_dataset
from training.fit import calibration_error, log_loss, split
from training.grow import Hyperparameters, grow
from training.world.make_log import LogPlan, make_log, plan_world
from training.world.policies import ServiceCore

FloatArray = NDArray[np.float64]
WINDOWS = (72, 24, 6)
"""Hours within which an order counts: the shorter, the rarer it is."""
KINDS = ("none", "root", "balanced")
_PER = 1000


class Weighted:
    """Grows trees here, with positive labels weighted."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def weight(self, label: FloatArray) -> float:
        """Return what a positive label counts of a negative one."""
        fewer = float((len(label) - label.sum()) / max(label.sum(), 1.0))
        return {"none": 1.0, "root": math.sqrt(fewer), "balanced": fewer}[self._kind]

    def grow(self, settings: Mapping[str, Any], rows: Rows, trees: int) -> lgb.Booster:
        """Grow so many trees."""
        return LOCAL.grow({**settings, "scale_pos_weight": self.weight(rows.label)}, rows, trees)

    def choose(self, settings: Mapping[str, Any], rows: Rows, later: Rows, most: int, patience: int) -> Chosen:
        """Grow until the later rows are not ranked better."""
        weight = self.weight(rows.label)
        weighted = {} if weight == 1.0 else {"scale_pos_weight": weight, "metric": "auc"}
        return LOCAL.choose({**settings, **weighted}, rows, later, most, patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One model, by decisions that it did not see; net value for each message, in roubles."""

    window: int
    rate: float
    kind: str
    weighted_loss: float
    """Log loss of its probabilities as they come."""
    undone_loss: float
    """With the weight's own factor taken out."""
    loss: float
    """Calibrated."""
    error: float
    """Calibration error, calibrated."""
    net: float


def judge(plan: LogPlan, messages: int) -> list[Judged]:
    """Make a log, fit a model of each kind to each window, and judge it."""
    world = plan_world(replace(plan, decisions=messages, customers=max(100, messages * 3 // 10), seed=plan.seed + 1000))
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/log.db"
        store = Store(url)
        try:
            make_log(plan, store, load_keys(store, url).current, None, lambda _: None)
        finally:
            store.close()
        for window in WINDOWS:
            data = read_dataset(url, timedelta(hours=window))
            for kind in KINDS:
                bundle, losses = _fit(data, kind, plan.seed)
                net = world.run(ServiceCore(world.rules, bundle, is_adaptive=False)).expected.net / messages
                found.append(Judged(window=window, rate=float(data.response.mean()), kind=kind, net=net, **losses))
    return found


def _fit(data: Dataset, kind: str, seed: int) -> tuple[Bundle, dict[str, float]]:
    hyper, engine = Hyperparameters(seed=seed), Weighted(kind)
    is_later = split(data, hyper)
    one = grow(data, data.matrix, data.response, np.ones(len(data), dtype=bool), is_later, hyper, engine)
    happened = data.response[is_later]
    shift = float(np.log(engine.weight(data.response[~is_later])))
    p = one.calibration.apply(one.raw_later)
    sent = data.channel != NO_SEND
    description = Description(
        columns=data.columns,
        calibration_slope=one.calibration.slope,
        calibration_intercept=one.calibration.intercept,
        unsubscribe_rates={
            str(c): float(data.unsubscribed[data.channel == c].mean()) for c in np.unique(data.channel[sent])
        },
    )
    return Bundle(kind, kind, description, Booster(one.text), None), {
        "weighted_loss": log_loss(happened, _logistic(one.raw_later)),
        "undone_loss": log_loss(happened, _logistic(one.raw_later - shift)),
        "loss": log_loss(happened, p),
        "error": calibration_error(happened, p),
    }


def _logistic(score: FloatArray) -> FloatArray:
    found: FloatArray = 1 / (1 + np.exp(-score))
    return found


def table(of_seeds: Sequence[Sequence[Judged]]) -> str:
    """Return means over seeds as Markdown."""
    lines = [
        "| orders within | are | weights | log loss, as it comes | weight undone | calibrated | calibration error | net value, RUB per 1,000 messages |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for same in zip(*of_seeds, strict=True):
        one = same[0]
        mean = {
            name: float(np.mean([getattr(each, name) for each in same]))
            for name in ("rate", "weighted_loss", "undone_loss", "loss", "error", "net")
        }
        lines.append(
            f"| {one.window} h | {mean['rate']:.2%} | {one.kind} | {mean['weighted_loss']:.4f} | {mean['undone_loss']:.4f} | {mean['loss']:.4f} "
            f"| {mean['error']:.4f} | {_PER * mean['net']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(prog="python -m training.world.class_weights", description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000, help="of each log (default: 20000)")
    parser.add_argument("--messages", type=int, default=5_000, help="that each model decides (default: 5000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    print(table([judge(LogPlan(decisions=options.decisions, seed=seed), options.messages) for seed in options.seeds]))


if __name__ == "__main__":
    main()
