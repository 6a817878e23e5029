"""Where the value of single sends is lost: one stage of the funnel at a time put right in what the service believes.

A send is worth margin x notice x click x order - harm x notice x unsubscribe - price, with chances of being noticed, of a click once noticed, of a caused
order once clicked, and of unsubscribing once noticed, each over the send's whole life. For every send that is open when a message of the online part arrives, these
are taken from the bundle, from the truth, and from the world's law with traits guessed from what the service is told (training.world.told). The send of
greatest believed value is chosen, none where that is not above 0, and counts for its true value. Contexts are those with which the online part
begins, so that one table does not depend on what any policy did before.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.actions import list_actions
from models.bundle import Bundle
from models.eligibility import find_eligible
from training.world.money import make_bench, train_bundle
from training.world.oracle import Candidates, find_candidates
from training.world.run import World
from training.world.told import told_population
from training.world.truth import Truth

FloatArray = NDArray[np.float64]
STAGES = ("notice", "click", "order", "unsubscribe")
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What comes of m sends, chances of shape (m,)."""

    notice: FloatArray
    """P(delivered and noticed)."""
    click: FloatArray
    """P(click | noticed)."""
    order: FloatArray
    """P(order caused | click)."""
    unsubscribe: FloatArray
    """P(unsubscribe | noticed)."""

    @classmethod
    def of(cls, notice: FloatArray, clicked: FloatArray, ordered: FloatArray, left: FloatArray) -> "Stages":
        """Return the stages of sends that are noticed, clicked, followed by a caused order and unsubscribed with these chances."""
        return cls(
            notice=notice,
            click=clicked / np.maximum(notice, _TINY),
            order=ordered / np.maximum(clicked, _TINY),
            unsubscribe=left / np.maximum(notice, _TINY),
        )

    def value(self, margin: float, harm: float, price: FloatArray) -> FloatArray:
        """Return what each send is worth, shape (m,)."""
        worth: FloatArray = self.notice * (margin * self.click * self.order - harm * self.unsubscribe) - price
        return worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The open sends of one message, and what is believed, told and true of them. Money in roubles."""

    margin: float
    harm: float
    price: FloatArray
    """What each send is expected to cost: it is not made once the customer has ordered."""
    believed: Stages
    told: Stages
    true: Stages

    def best(self) -> float:
        """Return what the best send is worth, no send being worth 0."""
        return max(0.0, float(self.true.value(self.margin, self.harm, self.price).max()))

    def earned(self, believed: Stages) -> float:
        """Return what the send is worth that who believes this chooses."""
        values = believed.value(self.margin, self.harm, self.price)
        place = int(values.argmax())
        return float(self.true.value(self.margin, self.harm, self.price)[place]) if values[place] > 0 else 0.0


def find_choices(world: World, bundle: Bundle, told: Truth, index: int) -> Choices | None:
    """Return the choices of a message of the world, None where nothing is open."""
    context = world.context(index)
    eligible = find_eligible(context, world.rules).eligible
    if not eligible:
        return None
    actions = list_actions(eligible)
    rates = {name: channel.unsubscribe_rate for name, channel in world.rules.channels.items()}
    curves = bundle.estimate(context, actions, rates, world.rules.harm.unsubscribe).curves
    assert curves is not None  # a bundle with a funnel draws them
    candidates = find_candidates(context, world.rules, is_whole_life=False)
    case = world.truth.case(index)
    still = case.prior @ case.not_yet_organic[:, candidates.hour - case.arrive]
    return Choices(
        margin=case.worth,
        harm=world.truth.harm,
        price=candidates.price * still,
        believed=Stages.of(curves.p_notice, curves.p_click, curves.uplift, curves.p_unsubscribe),
        told=_of_law(told, candidates, index),
        true=_of_law(world.truth, candidates, index),
    )


def _of_law(truth: Truth, candidates: Candidates, index: int) -> Stages:
    """Return the stages of a message's open sends by a law."""
    case = truth.case(index)
    curves = truth.curves(case, candidates.channel, candidates.hour, candidates.tiredness)
    weight = case.prior[:, None]
    bought = curves.click * curves.order * (1 - case.organic)[:, None]
    left = curves.unsubscribe * case.not_yet_organic[:, : case.lifetime]
    return Stages.of(*((weight * part).sum(axis=(1, 2)) for part in (curves.noticed, curves.click, bought, left)))


def measure(choices: Sequence[Choices]) -> dict[str, float]:
    """Return the share of the best single sends' value that each belief earns, in per cent."""
    best = sum(one.best() for one in choices)

    def share(name: str, stages: Sequence[str]) -> float:
        earned = 0.0
        for one in choices:
            source = getattr(one, name)
            earned += one.earned(replace(one.believed, **{stage: getattr(source, stage) for stage in stages}))
        return 100 * earned / best

    found = {"as believed": share("true", ())}
    for name, text in (("told", "by the law and what is told"), ("true", "true")):
        found |= {f"{stage} {text}": share(name, (stage,)) for stage in STAGES}
    return found | {"all by the law and what is told": share("told", STAGES)}


def run_seed(seed: int, every: int, log_decisions: int, online_decisions: int) -> dict[str, float]:
    """Return what `measure` says of one message in `every` of a seed's world."""
    bench = make_bench(seed, log_decisions, online_decisions)
    world = bench.world
    told = replace(world.truth, people=told_population(bench.people))
    with tempfile.TemporaryDirectory() as scratch:
        bundle = train_bundle(bench, seed, Path(scratch))
        found = [find_choices(world, bundle, told, index) for index in range(0, len(world.messages), every)]
    return measure([choices for choices in found if choices is not None])


def main(arguments: list[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.world.stages", description=__doc__)
    parser.add_argument("--seeds", default="0,1,2", help="seeds with commas between (default: 0,1,2)")
    parser.add_argument("--every", type=int, default=8, help="looks at one message in so many (default: 8)")
    parser.add_argument("--log-decisions", type=int, default=20_000, help="randomised decisions (default: 20000)")
    parser.add_argument("--online-decisions", type=int, default=12_000, help="messages to come (default: 12000)")
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    runs = [run_seed(seed, options.every, options.log_decisions, options.online_decisions) for seed in seeds]
    print("| belief | share of the best single send, % | by seed |\n|---|---:|---|")
    for name in runs[0]:
        shares = [run[name] for run in runs]
        print(f"| {name} | {np.mean(shares):.1f} | {', '.join(f'{share:.1f}' for share in shares)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
