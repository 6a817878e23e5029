"""How often the intervals of `evaluate` hold the truth: `python -m training.ope_coverage`, in worlds whose truth is known.

    light       hundreds of small worlds (training.lightweight) of 20,000 decisions, at good, fair and poor overlap
    service     logs of the simulated retailer that the service's own policy made, judging that policy
    challenger  the same logs, judging the same policy with a bundle that was trained on another log
    even        evenly random logs of the retailer, judging the service's policy

Each finished run of the retailer is kept in a folder, so that a study can be broken off, gone on with and made larger. `--write-docs` puts the tables into
docs/evaluation.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.bundle import Bundle, load_bundle
from models.context import Context
from models.decide import Evaluation, evaluate
from models.features import NO_SEND, Action
from models.policies import draw
from models.rules import Rules
from service.store.store import Store
from training.dataset import read_dataset
from training.evaluate import evaluate_policies
from training.fit import fit, save
from training.grow import Hyperparameters
from training.increment import estimate_increment, events_of
from training.journal import write_log, write_outcomes
from training.judged import read_log
from training.lightweight import OVERLAPS, OverlapKind, make_light
from training.off_policy import (
    Estimate,
    bootstrap,
    doubly_robust,
    find_overlap,
    ips,
    snips,
)
from training.targets import LOGGED, Target
from training.world.clock import to_time
from training.world.log import log_customers, logged_decisions, logged_visits
from training.world.make_log import LogPlan, plan_world
from training.world.oracle import find_candidates
from training.world.people import CHANNELS
from training.world.policies import Uniform
from training.world.protocol import Outcome as WorldOutcome
from training.world.protocol import Reply, Result
from training.world.run import World
from training.world.scenarios import world_rules

FloatArray = NDArray[np.float64]
DECISIONS = 20_000
WINDOW = timedelta(hours=72)
DOCUMENT = Path("docs/evaluation.md")
_TRAINING_SEED = 9_000
"""Seeds of the retailer's logs that bundles are trained on; those judged by begin at 0."""
KINDS = ("service", "challenger", "even")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One estimate in one world."""

    kind: str
    estimator: str
    value: float
    low: float
    high: float
    truth: float
    problems: tuple[str, ...]

    @property
    def is_given(self) -> bool:
        return not self.problems

    @property
    def is_covered(self) -> bool:
        return self.low <= self.truth <= self.high


def light_world(overlap: OverlapKind, seed: int, decisions: int = DECISIONS) -> list[Outcome]:
    """Judge a policy in one small world by every estimator."""
    logged = make_light(decisions, overlap, np.random.default_rng([seed, OVERLAPS.index(overlap)]))
    judged = logged.judged
    channels = find_overlap(judged.target / judged.channel_propensity, judged.thin, events_of(judged)).problems
    actions = find_overlap(judged.target_action / judged.propensity, judged.thin, judged.value > 0).problems
    net = judged.value - logged.price
    p, q = judged.propensity, judged.target_action
    found: list[Outcome] = []

    def add(estimator: str, value: float, interval: tuple[float, float], truth: float, problems: Sequence[str]) -> None:
        low, high = interval
        found.append(
            Outcome(
                kind=overlap,
                estimator=estimator,
                value=value,
                low=low,
                high=high,
                truth=truth,
                problems=tuple(problems),
            )
        )

    totals = {
        "IPS, total": ips(net, p, q),
        "SNIPS, total": snips(net, p, q),
        "DR, total": doubly_robust(net, p, q, logged.modelled, logged.modelled_value),
    }
    for name, estimate in totals.items():
        add(name, estimate.value, estimate.interval(), logged.value, actions)
    weights = q / p
    by_bootstrap = (np.nan, np.nan)
    if not actions:  # it takes longer than all the rest
        by_bootstrap = bootstrap(weights * net, weights, judged.customer, np.random.default_rng(seed), draws=300)
    add("SNIPS, total, bootstrap", totals["SNIPS, total"].value, by_bootstrap, logged.value, actions)
    increment = estimate_increment(judged, 0.0)
    add("increment, net", increment.net.value, increment.net.interval(), logged.margin - logged.cost, channels)
    add("increment, margin", increment.margin.value, increment.margin.interval(), logged.margin, channels)
    return found


def light_study(worlds: int, first: int, processes: int) -> list[Outcome]:
    """Judge in so many small worlds at each overlap."""
    asked = [(overlap, seed) for overlap in OVERLAPS for seed in range(first, first + worlds)]
    return [one for found in _spread(_light, asked, processes, "light worlds") for one in found]


def _light(asked: tuple[OverlapKind, int]) -> list[Outcome]:
    return light_world(*asked)


def _spread(run: Callable[[T], R], asked: Sequence[T], processes: int, what: str) -> Iterator[R]:
    """Run all of them with a progress bar, in their order."""
    spawn = get_context("spawn")  # LightGBM's threads do not survive a fork
    with (
        ProcessPoolExecutor(processes, mp_context=spawn) as pool,
        tqdm(total=len(asked), desc=what, disable=None) as bar,
    ):
        futures = [pool.submit(run, one) for one in asked]
        for future in as_completed(futures):
            future.result()
            bar.update()
        yield from (future.result() for future in futures)


class _Served:
    """The service's own policy, one step, with its distribution for the log; it learns nothing while it runs."""

    name = "service"

    def __init__(self, rules: Rules, bundle: Bundle) -> None:
        self._rules, self._bundle = rules, bundle

    def decide(self, context: Context) -> Reply:
        found = evaluate(context, self._rules, self._bundle)
        if not isinstance(found, Evaluation):
            return Reply(action=Action(channel=NO_SEND))
        chances = found.distribution.probabilities
        place = draw(chances, context.seed)
        action = found.distribution.table.actions[place]
        return Reply(action=action, propensity=float(chances[place]), distribution=found.distribution)

    def observe(self, outcome: WorldOutcome) -> None:
        """Ignore the outcome."""


def one_step(rules: Rules) -> Rules:
    """Return the same rules for one send a message."""
    return replace(rules, cascade=replace(rules.cascade, max_steps=1))


def make_bundle(folder: Path, seed: int, decisions: int = DECISIONS) -> Bundle:
    """Return a bundle trained on an evenly random log of the retailer, from the folder where it was made before."""
    place = folder / f"bundle-{seed}-{decisions}"
    if not (place / "manifest.json").is_file():
        world = plan_world(LogPlan(seed=_TRAINING_SEED + seed, decisions=decisions))
        with tempfile.TemporaryDirectory() as scratch:
            url = _write(world, world.run(Uniform(world.rules)), Path(scratch))
            data = read_dataset(url, WINDOW)
            save(fit(data, Hyperparameters(seed=seed), "evenly random", progress=lambda _: None), place, "study")
    return load_bundle(place)


def _write(world: World, result: Result, folder: Path) -> str:
    url = f"sqlite:///{folder / 'log.db'}"
    store = Store(url)
    try:
        hashes = log_customers(world.people)
        write_log(store, logged_decisions(world, result), hashes)
        write_outcomes(store, logged_visits(world, hashes))
    finally:
        store.close()
    return url


def true_increments(world: World, result: Result, target: Target, kept: frozenset[str]) -> tuple[float, float]:
    """Return the exact margin that a policy causes and its exact net increment, a decision, over those that are judged."""
    margins, nets = [], []
    for step in result.steps:
        if step.context.decision_id not in kept:
            continue
        chances, _ = target.chances(step.context)
        margin, net = true_actions(world, step.context)
        margins.append(sum(p * margin.get(action, 0.0) for action, p in chances.items()))
        nets.append(sum(p * net.get(action, 0.0) for action, p in chances.items()))
    return float(np.mean(margins)), float(np.mean(nets))


Key = tuple[str, datetime | None]


def true_actions(world: World, context: Context) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return the exact margin that each send of a first step causes, and its net increment, in roubles."""
    case = world.truth.case(world.index_of(context.decision_id))
    sends = find_candidates(context, world.rules, is_whole_life=False)
    if not len(sends):
        return {}, {}
    curves = world.truth.curves(case, sends.channel, sends.hour, sends.tiredness)
    pending = case.prior[:, None] * case.not_yet_organic
    caused = np.einsum("z,azg->a", case.prior * (1 - case.organic), curves.click * curves.order)
    left = np.einsum("zg,azg->a", pending[:, : case.lifetime], curves.unsubscribe)
    spend = sends.price * pending[:, sends.hour - case.arrive].sum(axis=0)
    margin = case.worth * caused
    net = margin - spend - world.truth.harm * left
    keys = [(CHANNELS[c], to_time(int(hour))) for c, hour in zip(sends.channel, sends.hour, strict=True)]
    return dict(zip(keys, margin.tolist(), strict=True)), dict(zip(keys, net.tolist(), strict=True))


def retailer_world(kind: str, seed: int, folder: Path, decisions: int = DECISIONS) -> list[Outcome]:
    """Judge a policy in one world of the simulated retailer; what was found before is read from the folder."""
    place = folder / f"{kind}-{seed}-{decisions}.json"
    if place.is_file():
        return [Outcome(**{**row, "problems": tuple(row["problems"])}) for row in json.loads(place.read_text())]
    rules = one_step(world_rules())
    first = make_bundle(folder, 0, decisions)
    world = plan_world(LogPlan(seed=seed, decisions=decisions))
    result = world.run(Uniform(world.rules) if kind == "even" else _Served(rules, first))
    with tempfile.TemporaryDirectory() as scratch:
        url = _write(world, result, Path(scratch))
        log = read_log(url, WINDOW)
        kept = frozenset(logged.decision_id for logged in log.decisions())
        if kind == "service":
            target = Target(name=LOGGED, rules=None)
            gains = [step.gain for step in result.steps if step.context.decision_id in kept]
            margin, net = (float(np.mean([getattr(gain, name) for gain in gains])) for name in ("caused_margin", "net"))
        else:
            bundle = first if kind == "even" else make_bundle(folder, 1, decisions)
            target = Target(name=kind, rules=rules, bundle=bundle)
            margin, net = true_increments(world, result, target, kept)
        (verdict,) = evaluate_policies(url, [target], rules, WINDOW, seed=seed).verdicts
    found = []
    for name, truth in (("margin", margin), ("net", net)):
        estimate = Estimate(value=np.nan, standard_error=np.nan, effective_sample_size=0.0, influence=np.zeros(0))
        if verdict.increment is not None:
            estimate = getattr(verdict.increment, name)
        low, high = estimate.interval()
        found.append(
            Outcome(
                kind=kind,
                estimator=f"increment, {name}",
                value=estimate.value,
                low=low,
                high=high,
                truth=truth,
                problems=verdict.problems,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps([asdict(one) for one in found]))
    return found


def _retailer(asked: tuple[str, int], folder: Path, decisions: int) -> list[Outcome]:
    return retailer_world(*asked, folder, decisions)


def retailer_study(
    kinds: Sequence[str], worlds: int, folder: Path, processes: int, decisions: int = DECISIONS
) -> list[Outcome]:
    """Judge in so many worlds of the retailer for each kind of log."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in (0, 1) if "challenger" in kinds else (0,):
        make_bundle(folder, seed, decisions)
    asked = [(kind, seed) for kind in kinds for seed in range(worlds)]
    run = partial(_retailer, folder=folder, decisions=decisions)
    return [one for found in _spread(run, asked, processes, "retailer worlds") for one in found]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return coverage, error and refusals of each estimator in each kind of world as a Markdown table."""
    lines = [
        "| worlds | estimate | worlds judged | not enough overlap | 95 % intervals that hold the truth | mean error of the truth, % | mean half-width of the truth, % | bias of the truth, % |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, estimator in dict.fromkeys((o.kind, o.estimator) for o in outcomes):
        mine = [o for o in outcomes if (o.kind, o.estimator) == (kind, estimator)]
        given = [o for o in mine if o.is_given]
        head = f"| {kind} | {estimator} | {len(given)} | {len(mine) - len(given)} |"
        if not given:
            lines.append(f"{head} | | | |")
            continue
        covered = float(np.mean([o.is_covered for o in given]))
        error = np.sqrt(covered * (1 - covered) / len(given))
        truth = float(np.mean([abs(o.truth) for o in given]))
        misses = np.array([o.value - o.truth for o in given])
        half = float(np.mean([(o.high - o.low) / 2 for o in given]))
        lines.append(
            f"{head} {100 * covered:.1f} ± {100 * error:.1f} % | {100 * np.abs(misses).mean() / truth:.1f} | {100 * half / truth:.1f} "
            f"| {100 * misses.mean() / truth:+.1f} |"
        )
    return "\n".join(lines)


class NoPlace(Exception):
    """Raised when a document has no pair of comments between which a study's table goes; the message names them."""


def write_between(document: Path, study: str, text: str) -> None:
    """Put a study's text between its two comments in a document.

    Raises
    ------
    NoPlace: the document has not both, in their order.
    """
    begin, end = f"<!-- ope-coverage {study}: begin -->", f"<!-- ope-coverage {study}: end -->"
    whole = document.read_text(encoding="utf-8")
    head, has_begin, rest = whole.partition(begin)
    _, has_end, tail = rest.partition(end)
    if not has_begin or not has_end:
        raise NoPlace(f"{document} needs a line {begin} and after it a line {end} to hold the table")
    document.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.ope_coverage", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--worlds", type=int, default=400, help="small worlds at each overlap, 0 for none (default: 400)"
    )
    parser.add_argument(
        "--retailers", type=int, default=0, help="worlds of the simulated retailer of each kind (default: none)"
    )
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="kinds of the retailer's logs, by commas (default: all)"
    )
    parser.add_argument("--to", type=Path, default=Path("var/ope-coverage"), help="folder for finished runs")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {DOCUMENT}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the studies, print their tables, and return 0."""
    options = _parser().parse_args(arguments)
    kinds = [kind for kind in options.kinds.split(",") if kind]
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        print(f"--kinds: there is no {unknown[0]}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    studies: dict[str, tuple[str, list[Outcome]]] = {}
    if options.worlds:
        command = f"python -m training.ope_coverage --worlds {options.worlds}"
        studies["light"] = command, light_study(options.worlds, 0, options.processes)
    if options.retailers:
        command = f"python -m training.ope_coverage --worlds 0 --retailers {options.retailers} --kinds {options.kinds}"
        studies["retailer"] = command, retailer_study(kinds, options.retailers, options.to, options.processes)
    for study, (command, outcomes) in studies.items():
        text = f"{table(outcomes)}\n\n`{command}`: {DECISIONS:,} decisions a log."
        print(f"\n{text}")
        if options.write_docs:
            write_between(DOCUMENT, study, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
