"""Whether the statistics of experiments keep what they promise: `python -m training.experiments.simulations`, in experiments whose truth is known.

    errors   A/A experiments: how often a difference is found where there is none, at one look and at 28 daily ones, by the t-test and by the always-valid interval;
             and how often intervals hold a true lift of 20 %
    power    experiments of the planner's size: how often its effect is found
    rulings  how often the treated variant is shipped, or called harmful
    shares   how often the check of sample ratios alarms

All run the code that judges real experiments (training.experiments.statistics). +- is the Monte-Carlo standard error. `--write-docs` puts the tables into docs/experiments.md.
"""

import argparse
import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
from tqdm import tqdm

from training.experiments.comparison import Comparison, compare, compare_daily, measure_baseline
from training.experiments.planning import needed_customers
from training.experiments.ratio_check import check_ratio
from training.experiments.ruling import Guardrail, Success, Verdict, rule
from training.experiments.worlds import (
    CLICKS,
    CONVERSION,
    DAYS,
    EVEN,
    REVENUE,
    UNEVEN,
    Metric,
    draw_experiment,
)

ALPHA = 0.05
POWER = 0.8
DOCUMENT = Path("docs/experiments.md")
LIFT = 0.2
"""The true lift where intervals are to hold one."""
MARGIN = 0.1
_PILOT = 1_000_000
"""Customers of each variant on which the deviations that the planner is given are measured."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A metric as it is experimented on."""

    metric: Metric
    customers: int
    shares: tuple[float, float] = EVEN
    is_adjusted: bool = False
    lift: float = 0.0

    @property
    def name(self) -> str:
        """What the tables call it."""
        shares = "" if self.shares == EVEN else ", {:.0%} / {:.0%}".format(*self.shares)
        return f"{self.metric.name}{', CUPED' if self.is_adjusted else ''}{shares}"


ERRORS = (
    Setting(metric=REVENUE, customers=10_000),
    Setting(metric=REVENUE, customers=10_000, is_adjusted=True),
    Setting(metric=REVENUE, customers=20_000, shares=UNEVEN),
    Setting(metric=CONVERSION, customers=20_000),
    Setting(metric=CONVERSION, customers=20_000, is_adjusted=True),
    Setting(metric=CONVERSION, customers=20_000, shares=UNEVEN),
    Setting(metric=CLICKS, customers=10_000),
    Setting(metric=CLICKS, customers=10_000, is_adjusted=True),
)
POWERS = (
    *(Setting(metric=REVENUE, customers=0, lift=lift) for lift in (0.2, 0.3, 0.4)),
    *(Setting(metric=REVENUE, customers=0, lift=lift, is_adjusted=True) for lift in (0.2, 0.3, 0.4)),
    *(Setting(metric=CONVERSION, customers=0, lift=lift) for lift in (0.3, 0.5, 0.8)),
    *(Setting(metric=CLICKS, customers=0, lift=lift) for lift in (0.03, 0.05, 0.1)),
    *(Setting(metric=CLICKS, customers=0, lift=lift, is_adjusted=True) for lift in (0.03, 0.05, 0.1)),
    Setting(metric=CLICKS, customers=0, lift=0.05, shares=UNEVEN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What 28 daily looks at one experiment found. The last is the one fixed beforehand; looks that were refused find nothing."""

    refused: int
    is_fixed_wrong: bool
    """The t-interval at the last look does not hold the truth."""
    is_peeked_wrong: bool
    """A t-interval at some look does not."""
    is_always_wrong: bool
    """An always-valid interval at some look does not."""
    is_lift_wrong: bool
    """An always-valid interval of the lift at some look does not."""
    is_found_last: bool
    """The always-valid interval at the last look leaves 0 out."""
    is_found: bool
    """At some look it does."""


def look_daily(setting: Setting, seed: int) -> Looks:
    """Run one experiment and look at it every day."""
    rng = np.random.default_rng(seed)
    control, treated = draw_experiment(
        setting.metric, setting.customers, setting.lift, rng, shares=setting.shares, is_adjusted=setting.is_adjusted
    )
    looks = compare_daily(control, treated, alpha=ALPHA, days=DAYS)
    given = [look for look in looks if not look.problem]
    truth = setting.metric.mean * setting.lift
    return Looks(
        refused=len(looks) - len(given),
        is_fixed_wrong=_misses(looks[-1].low, looks[-1].high, truth),
        is_peeked_wrong=any(_misses(look.low, look.high, truth) for look in given),
        is_always_wrong=any(_misses(look.always_low, look.always_high, truth) for look in given),
        is_lift_wrong=any(_misses(look.always_lift_low, look.always_lift_high, setting.lift) for look in given),
        is_found_last=_misses(looks[-1].always_low, looks[-1].always_high, 0.0),
        is_found=any(_misses(look.always_low, look.always_high, 0.0) for look in given),
    )


def _misses(low: float, high: float, truth: float) -> bool:
    """Tell whether an interval leaves the truth out; one of nan says nothing, so it does not."""
    return truth < low or truth > high


def find_once(setting: Setting, seed: int) -> bool:
    """Run one experiment, and tell whether the t-test at its end finds a difference."""
    rng = np.random.default_rng(seed)
    control, treated = draw_experiment(
        setting.metric, setting.customers, setting.lift, rng, shares=setting.shares, is_adjusted=setting.is_adjusted
    )
    return compare(control, treated, alpha=ALPHA).p_value < ALPHA


def plan(setting: Setting, *, is_daily: bool) -> Setting:
    """Return the setting with as many customers as the planner asks for, with the deviations of large samples with and without the lift."""
    rng = np.random.default_rng(1)
    pilots = draw_experiment(
        setting.metric, 2 * _PILOT, setting.lift, rng, shares=EVEN, is_adjusted=setting.is_adjusted
    )
    control, treated = map(measure_baseline, pilots)
    customers = needed_customers(
        setting.metric.mean,
        control.deviation,
        setting.lift,
        alpha=ALPHA,
        power=POWER,
        shares=setting.shares,
        treated_deviation=treated.deviation,
        is_daily=is_daily,
    )
    return replace(setting, customers=customers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An experiment of two success metrics and two guardrails: their true lifts. The share of clicks is better high, conversion to a complaint is better low."""

    name: str
    revenue: float = 0.0
    clicks: float = 0.0
    guarded_clicks: float = 0.0
    complaints: float = 0.0


CASES = (
    Case(name="nothing differs"),
    Case(name="clicks +15 %, guardrails as before", clicks=0.15),
    Case(name="clicks +15 %, a guardrail worse by exactly its margin", clicks=0.15, guarded_clicks=-MARGIN),
    Case(name="clicks +15 %, a guardrail worse by twice its margin", clicks=0.15, guarded_clicks=-2 * MARGIN),
    Case(name="clicks -15 %, guardrails as before", clicks=-0.15),
)
_RULED = 10_000


def rule_daily(case: Case, seed: int) -> tuple[Verdict, ...]:
    """Run one experiment, and rule on it every day."""
    rng = np.random.default_rng(seed)

    def looks(metric: Metric, lift: float) -> list[Comparison]:
        control, treated = draw_experiment(metric, _RULED, lift, rng, shares=EVEN, is_adjusted=False)
        return compare_daily(control, treated, alpha=ALPHA, days=DAYS)

    metrics = zip(
        looks(REVENUE, case.revenue), looks(CLICKS, case.clicks), looks(CLICKS, case.guarded_clicks), strict=True
    )
    ratio = check_ratio({"control": _RULED, "treated": _RULED}, {"control": 1.0, "treated": 1.0})
    return tuple(
        rule(
            [Success(metric="revenue", comparison=revenue), Success(metric="clicks", comparison=clicks)],
            [Guardrail(metric="guarded clicks", comparison=guarded, margin=MARGIN)],
            ratio,
            alpha=ALPHA,
        ).verdict
        for revenue, clicks, guarded in metrics
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How customers come: what was set for the treated variant, and what it truly gets."""

    name: str
    customers: int
    share: float
    true_share: float


SPLITS = (
    Split(name="50 % / 50 %, as set", customers=20_000, share=0.5, true_share=0.5),
    Split(name="80 % / 20 %, as set", customers=20_000, share=0.2, true_share=0.2),
    Split(name="50 % / 50 % set, every 20th of the treated lost", customers=20_000, share=0.5, true_share=0.95 / 1.95),
)


def check_daily(split: Split, seed: int) -> tuple[list[bool], list[bool]]:
    """Return by day whether the check of the sample ratio warned, and whether it told a mismatch."""
    rng = np.random.default_rng(seed)
    daily = rng.multinomial(split.customers, np.full(len(DAYS), 1 / len(DAYS)))
    treated = np.cumsum(rng.binomial(daily, split.true_share))
    control = np.cumsum(daily) - treated
    expected = {"control": 1 - split.share, "treated": split.share}
    checks = [
        check_ratio({"control": int(c), "treated": int(t)}, expected) for c, t in zip(control, treated, strict=True)
    ]
    return [check.is_warning for check in checks], [check.is_mismatch for check in checks]


def rate(hits: Sequence[bool]) -> str:
    """Return a share in per cent with its Monte-Carlo standard error."""
    share = float(np.mean(hits))
    return f"{100 * share:.1f} ± {100 * np.sqrt(share * (1 - share) / len(hits)):.1f} %"


def _run(run: Callable[[int], R], worlds: int, first_seed: int) -> list[R]:
    return [run(first_seed + world) for world in range(worlds)]


def _spread(
    pool: ProcessPoolExecutor, what: str, asked: Sequence[T], run: Callable[[T, int], R], worlds: int
) -> list[list[R]]:
    """Run so many worlds of each asked, with a progress bar; every world of every row of every table has its own seed."""
    first_seed = crc32(what.encode()) * 1_000_000_000
    block = max(1, worlds // 10)
    jobs = [
        (row, pool.submit(_run, partial(run, one), min(block, worlds - start), first_seed + 1_000_000 * row + start))
        for row, one in enumerate(asked)
        for start in range(0, worlds, block)
    ]
    found: list[list[R]] = [[] for _ in asked]
    for row, job in tqdm(jobs, desc=what, disable=None):
        found[row] += job.result()
    return found


def errors_table(pool: ProcessPoolExecutor, worlds: int) -> str:
    """Return the table of false positives and coverage."""
    lines = [
        "| metric | customers | looks refused | t-test, last look | t-test, any of 28 looks | always-valid, any of 28 looks "
        "| with a lift of 20 %: t-interval holds it, last look | always-valid interval holds it, all looks | interval of the lift, all looks |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    same = _spread(pool, "A/A", ERRORS, look_daily, worlds)
    lifted = [replace(setting, lift=LIFT) for setting in ERRORS]
    held = _spread(pool, "coverage", lifted, look_daily, worlds)
    for setting, aa, ab in zip(ERRORS, same, held, strict=True):
        refused = float(np.mean([look.refused for look in aa]))
        lines.append(
            f"| {setting.name} | {setting.customers:,} | {refused:.1f} | {rate([look.is_fixed_wrong for look in aa])} "
            f"| {rate([look.is_peeked_wrong for look in aa])} | {rate([look.is_always_wrong for look in aa])} "
            f"| {rate([not look.is_fixed_wrong for look in ab])} | {rate([not look.is_always_wrong for look in ab])} "
            f"| {rate([not look.is_lift_wrong for look in ab])} |"
        )
    return "\n".join(lines)


def power_table(pool: ProcessPoolExecutor, worlds: int) -> str:
    """Return the table of power against the planner's 80 %."""
    lines = [
        "| metric | lift | customers for one look | found by the t-test | customers for daily looks | found by the always-valid interval, last look | by any of 28 looks |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    once = list(pool.map(partial(plan, is_daily=False), POWERS))
    daily = list(pool.map(partial(plan, is_daily=True), POWERS))
    found = _spread(pool, "power, one look", once, find_once, worlds)
    looked = _spread(pool, "power, daily looks", daily, look_daily, max(1, worlds // 4))
    for one, by_test, many, by_looks in zip(once, found, daily, looked, strict=True):
        lines.append(
            f"| {one.name} | {one.lift:.0%} | {one.customers:,} | {rate(by_test)} | {many.customers:,} "
            f"| {rate([look.is_found_last for look in by_looks])} | {rate([look.is_found for look in by_looks])} |"
        )
    return "\n".join(lines)


def rulings_table(pool: ProcessPoolExecutor, worlds: int) -> str:
    """Return the table of verdicts."""
    lines = [
        "| truth | shipped, last look | shipped, any of 28 looks | harmful, last look | harmful, any of 28 looks |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, verdicts in zip(CASES, _spread(pool, "rulings", CASES, rule_daily, max(1, worlds // 2)), strict=True):
        cells = [
            rate([pick(days, verdict) for days in verdicts])
            for verdict in (Verdict.SHIP, Verdict.HARMFUL)
            for pick in (_is_last, _is_any)
        ]
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_last(days: Sequence[Verdict], verdict: Verdict) -> bool:
    return days[-1] == verdict


def _is_any(days: Sequence[Verdict], verdict: Verdict) -> bool:
    return verdict in days


def shares_table(pool: ProcessPoolExecutor, worlds: int) -> str:
    """Return the table of alarms of the sample ratio."""
    lines = [
        "| customers | warns, last look | warns, any of 28 looks | mismatch, last look | mismatch, any of 28 looks |",
        "|---|---:|---:|---:|---:|",
    ]
    for split, checks in zip(SPLITS, _spread(pool, "shares", SPLITS, check_daily, worlds), strict=True):
        cells = [rate([pick(check[which]) for check in checks]) for which in (0, 1) for pick in (_last, any)]
        lines.append(f"| {split.customers:,}: {split.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _last(days: Sequence[bool]) -> bool:
    return days[-1]


TABLES = {"errors": errors_table, "power": power_table, "rulings": rulings_table, "shares": shares_table}


class NoPlace(Exception):
    """Raised when a document has no pair of comments between which a table goes; the message names them."""


def write_between(document: Path, table: str, text: str) -> None:
    """Put a table between its two comments in a document.

    Raises
    ------
    NoPlace: the document has not both, in their order.
    """
    begin, end = f"<!-- simulations {table}: begin -->", f"<!-- simulations {table}: end -->"
    head, has_begin, rest = document.read_text(encoding="utf-8").partition(begin)
    _, has_end, tail = rest.partition(end)
    if not has_begin or not has_end:
        raise NoPlace(f"{document} needs a line {begin} and after it a line {end} to hold the table")
    document.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    spawn = get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=spawn) as pool:
        for name in options.tables.split(","):
            started = time.perf_counter()
            table = TABLES[name](pool, options.worlds)
            yield name, f"{table}\n\n{_caption(options, name, time.perf_counter() - started)}"


def _caption(options: argparse.Namespace, name: str, seconds: float) -> str:
    versions = ", ".join(f"{library} {version(library)}" for library in ("numpy", "scipy", "tea-tasting"))
    return (
        f"`python -m training.experiments.simulations --tables {name} --worlds {options.worlds}`: {options.worlds:,} experiments a figure; {seconds:.0f} seconds on {_processor()}, "
        f"{os.cpu_count()} cores, {options.processes} processes; Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.experiments.simulations", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--worlds", type=int, default=1000, help="experiments a figure (default: 1000)")
    parser.add_argument("--tables", default=",".join(TABLES), help="tables to make, by commas (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--write-docs", action="store_true", help=f"also put the tables into {DOCUMENT}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the simulations, print their tables, and return 0; 2 where an option is wrong."""
    options = _parser().parse_args(arguments)
    unknown = sorted(set(options.tables.split(",")) - set(TABLES))
    if unknown or options.worlds < 1 or options.processes < 1:
        problem = f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}" if unknown else "give 1 or more"
        print(f"{'--tables' if unknown else '--worlds, --processes'}: {problem}", file=sys.stderr)
        return 2
    for name, text in _tables(options):
        print(f"\n{text}", flush=True)
        if options.write_docs:
            write_between(DOCUMENT, name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
