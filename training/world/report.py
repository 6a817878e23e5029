"""The money table of runs, the goals beside what was measured, and how soon a policy recovers from a change.

Shares are of the cascade oracle's net value on the same seed. A figure with ± is the mean over seeds and the standard deviation between them.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.world.bench import FloatArray, Run
from training.world.contenders import (
    HAND_WRITTEN,
    MABWISER,
    MABWISER_CLICKS,
    ORACLE,
    SINGLE_ORACLE,
    THREE_SMS,
    VOWPAL,
    VOWPAL_CLICKS,
)
from training.world.scenarios import ScenarioName

RECOVERY_WINDOW = 300
RECOVERED = 0.95
_ROUNDING = 1e-6
"""Roubles by which sums of a window may differ without meaning."""
CHANGING: tuple[ScenarioName, ...] = (
    "push_outage",
    "viber_blocked",
    "sms_price_doubled",
    "seasonal_shift",
    "clock_change",
)
BySeed = Mapping[int, Mapping[str, Run]]
"""Runs of each seed by the policy's name."""


class NoPlace(Exception):
    """Raised when a document has no pair of comments between which a scenario's table goes; the message names them."""


def by_seed(runs: Iterable[Run]) -> BySeed:
    """Return runs by seed and policy."""
    found: dict[int, dict[str, Run]] = {}
    for run in runs:
        found.setdefault(run.seed, {})[run.name] = run
    return found


def recovery(own: FloatArray, best: FloatArray, change: int, window: int = RECOVERY_WINDOW) -> int | None:
    """Return how many decisions after a change a policy is back to 95 % of its own new steady state.

    With v and v* the exact expected net value of the policy's and of the cascade oracle's decisions in order of arrival, c the change, w the window
    and m the number of decisions,

        R(n) = sum of v over the w decisions up to c + n / sum of v* over the same,    n >= w,
        steady state S = sum of v over the last m / 3 decisions / sum of v* over the same,

    and the answer is the smallest n with R(n) >= 0.95 S. Only windows that lie wholly after the change count, so that the answer is at least w:
    w itself says that nothing was lost that the window can tell. Dividing by the oracle's takes out which messages happen to come.

    Parameters
    ----------
    own, best : shape (m,), net value of each message.
    change : how many messages arrive before the change.

    Returns
    -------
    None where it never is back, or where its steady state earns nothing.
    """
    last = len(own) - len(own) // 3
    steady = own[last:].sum() / best[last:].sum()
    if steady <= 0 or len(own) - change < window:
        return None
    sums = [np.concatenate([[0.0], np.cumsum(values[change:])]) for values in (own, best)]
    mine, theirs = (total[window:] - total[:-window] for total in sums)
    back = np.flatnonzero(mine >= RECOVERED * steady * theirs - _ROUNDING)
    return int(back[0]) + window if len(back) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the service is to reach; `measure` returns None where the runs lack what it needs."""

    text: str
    aim: float
    unit: str
    measure: Callable[[Mapping[str, Run]], float | None]
    is_most: bool = False
    """Whether less is better."""
    is_within_noise: bool = False
    """Whether it is enough to miss the aim by no more than two standard errors of the mean over seeds."""

    def is_reached(self, measured: FloatArray) -> bool:
        """Return whether what was measured on the seeds, shape (s,), is as wanted on average."""
        mean = float(measured.mean())
        if self.is_within_noise and len(measured) > 1:
            mean += 2 * float(measured.std(ddof=1)) / math.sqrt(len(measured))
        return mean <= self.aim if self.is_most else mean >= self.aim


def _ratio(
    name: str, others: Sequence[str], what: Callable[[Run], float]
) -> Callable[[Mapping[str, Run]], float | None]:
    """Return what divides a policy's figure by the greatest of others' on the same seed; beyond all bounds where they earn nothing."""

    def measure(runs: Mapping[str, Run]) -> float | None:
        found = [what(runs[other]) for other in others if other in runs]
        if name not in runs or not found:
            return None
        return what(runs[name]) / max(found) if max(found) > 0 else float("inf")

    return measure


def _percent(name: str, other: str, what: Callable[[Run], float]) -> Callable[[Mapping[str, Run]], float | None]:
    ratio = _ratio(name, (other,), what)
    return lambda runs: None if (found := ratio(runs)) is None else 100 * found


def _net(run: Run) -> float:
    return run.net


def _recovery_of_service(runs: Mapping[str, Run]) -> float | None:
    if "service" not in runs:
        return None
    run = runs["service"]
    found = recovery(run.by_message, runs[ORACLE].by_message, run.change)
    return float("inf") if found is None else float(found)


_SHARE = _percent("service", ORACLE, _net)
_RATIOS = (
    Goal(
        text="net value, against the best of Vowpal Wabbit", aim=2.4, unit="x", measure=_ratio("service", VOWPAL, _net)
    ),
    Goal(text="net value, against the best of MABWiser", aim=2.1, unit="x", measure=_ratio("service", MABWISER, _net)),
    Goal(
        text="net value, against Vowpal Wabbit taught by clicks",
        aim=2.4,
        unit="x",
        measure=_ratio("service", VOWPAL_CLICKS, _net),
    ),
    Goal(
        text="net value, against MABWiser taught by clicks",
        aim=2.1,
        unit="x",
        measure=_ratio("service", MABWISER_CLICKS, _net),
    ),
    Goal(
        text="net value, against the best hand-written order",
        aim=2.3,
        unit="x",
        measure=_ratio("service", HAND_WRITTEN, _net),
    ),
)
_STATIONARY = (
    Goal(text="share of the cascade oracle", aim=85, unit="%", measure=_SHARE),
    *_RATIOS,
    Goal(
        text="restricted to one send, share of the single-send oracle",
        aim=90,
        unit="%",
        measure=_percent("service-1", SINGLE_ORACLE, _net),
    ),
    Goal(
        text="paid spend, of that of three SMS each",
        aim=12,
        unit="%",
        measure=_percent("service", THREE_SMS, lambda run: run.spend),
        is_most=True,
    ),
    Goal(
        text="caused orders, against three SMS each",
        aim=2,
        unit="x",
        measure=_ratio("service", (THREE_SMS,), lambda run: run.caused_orders),
    ),
    Goal(
        text="unsubscribes, of those of three SMS each",
        aim=15,
        unit="%",
        measure=_percent("service", THREE_SMS, lambda run: run.unsubscribes),
        is_most=True,
    ),
)
_COLD_START = (
    Goal(text="share of the cascade oracle", aim=55, unit="%", measure=_SHARE),
    Goal(
        text="share of the cascade oracle in the second half",
        aim=80,
        unit="%",
        measure=_percent("service", ORACLE, lambda run: run.second_half),
    ),
)
_CHANGE = (
    Goal(
        text=f"decisions until back to {RECOVERED:.0%} of the new steady state",
        aim=600,
        unit="decisions",
        measure=_recovery_of_service,
        is_most=True,
    ),
    Goal(
        text="net value over the whole run, against the service without correction (but for noise)",
        aim=1,
        unit="x",
        measure=_ratio("service", ("no-correction",), _net),
        is_within_noise=True,
    ),
)


def goals_of(scenario: ScenarioName) -> tuple[Goal, ...]:
    """Return the goals that a scenario has."""
    if scenario in CHANGING:
        return _CHANGE
    return _COLD_START if scenario == "cold_start" else _STATIONARY


def measure_goals(runs: BySeed, scenario: ScenarioName) -> list[tuple[Goal, FloatArray]]:
    """Return each goal that can be measured with its figure on every seed."""
    found = []
    for goal in goals_of(scenario):
        values = [value for mine in runs.values() if (value := goal.measure(mine)) is not None]
        if values:
            found.append((goal, np.array(values)))
    return found


def to_markdown(runs: BySeed, scenario: ScenarioName) -> str:
    """Return the table and below it the goals."""
    lines = [*_table(runs, scenario), ""]
    measured = measure_goals(runs, scenario)
    if measured:
        lines += ["| goal of the service | aim | measured | reached |", "|---|---:|---:|---|"]
    for goal, values in measured:
        bound = "at most" if goal.is_most else "at least"
        reached = "yes" if goal.is_reached(values) else "no"
        figure = _figure(values, ",.0f" if goal.unit == "decisions" else ".2f" if goal.unit == "x" else ".1f")
        lines.append(f"| {goal.text} | {bound} {goal.aim:g} {goal.unit} | {figure} {goal.unit} | {reached} |")
    return "\n".join(lines).rstrip()


def _table(runs: BySeed, scenario: ScenarioName) -> list[str]:
    titles = ["share of cascade oracle, %", "net value", "paid spend", "of 3 SMS, %", "caused orders", "of 3 SMS, x"]
    titles += ["unsubscribes", "of 3 SMS, %", "sends", "CPU, s"]
    if scenario in CHANGING:
        titles.append("decisions to recover")
    lines = ["| policy | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for name in next(iter(runs.values())):
        mine = [found[name] for found in runs.values()]
        sms = [found.get(THREE_SMS) for found in runs.values()]

        def mean(what: Callable[[Run], float], mine: Sequence[Run] = mine) -> str:
            return f"{np.mean([what(run) for run in mine]):,.0f}"

        def against(
            what: Callable[[Run], float],
            form: str,
            factor: float = 1.0,
            mine: Sequence[Run] = mine,
            sms: Sequence[Run | None] = sms,
        ) -> str:
            ratios = [what(run) / what(base) for run, base in zip(mine, sms, strict=True) if base is not None]
            return format(factor * float(np.mean(ratios)), form) if ratios else ""

        shares = np.array([100 * found[name].net / found[ORACLE].net for found in runs.values()])
        cells = [
            _figure(shares, ".1f"),
            mean(_net),
            mean(lambda run: run.spend),
            against(lambda run: run.spend, ".0f", 100),
            mean(lambda run: run.caused_orders),
            against(lambda run: run.caused_orders, ".2f"),
            mean(lambda run: run.unsubscribes),
            against(lambda run: run.unsubscribes, ".0f", 100),
            mean(lambda run: run.sends),
            mean(lambda run: run.seconds),
        ]
        if scenario in CHANGING:
            cells.append(_recoveries(name, runs))
        lines.append(f"| {mine[0].policy} | " + " | ".join(cells) + " |")
    return lines


def _recoveries(name: str, runs: BySeed) -> str:
    """Return a policy's recovery on each seed; a dash where it never is back."""
    found = [recovery(mine[name].by_message, mine[ORACLE].by_message, mine[name].change) for mine in runs.values()]
    return ", ".join("-" if value is None else str(value) for value in found)


def _figure(values: FloatArray, form: str) -> str:
    if len(values) < 2 or not np.isfinite(values).all():
        return f"{values.mean():{form}}"
    return f"{values.mean():{form}} ± {values.std(ddof=1):{form}}"


def to_json(runs: BySeed, scenario: ScenarioName, about: Mapping[str, str]) -> str:
    """Return every run's figures and the goals, without the value of each message."""
    rows = []
    for mine in runs.values():
        for run in mine.values():
            row = asdict(run)
            by_message, change = row.pop("by_message"), row.pop("change")
            row["share"] = run.net / mine[ORACLE].net
            if scenario in CHANGING:
                row["decisions_to_recover"] = recovery(by_message, mine[ORACLE].by_message, change)
            rows.append(row)
    goals = [
        {"goal": goal.text, "aim": goal.aim, "unit": goal.unit, "is_most": goal.is_most, "measured": values.tolist()}
        for goal, values in measure_goals(runs, scenario)
    ]
    return json.dumps({"scenario": scenario, **about, "runs": rows, "goals": goals}, indent=1)


def write_between(document: Path, section: str, text: str) -> None:
    """Put a section's text between its two comments in a document, in a new section at its end where it has neither.

    Raises
    ------
    NoPlace: the document has one of them, or not in their order.
    """
    begin, end = f"<!-- bench-money {section}: begin -->", f"<!-- bench-money {section}: end -->"
    whole = document.read_text(encoding="utf-8")
    if begin not in whole and end not in whole:
        whole = f"{whole.rstrip()}\n\n## {section.replace('_', ' ').capitalize()}\n\n{begin}\n{end}\n"
    head, has_begin, rest = whole.partition(begin)
    _, has_end, tail = rest.partition(end)
    if not has_begin or not has_end:
        raise NoPlace(f"{document} needs a line {begin} and after it a line {end} to hold the table, or neither")
    document.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
