"""The gate: a version becomes champion only where the log says that it earns more, and does no harm on the way.

Both the candidate and the champion are judged by the same decisions, which the candidate was not trained on (`training.evaluate`). The lower bound of the candidate's net
increment over no send must be above the champion's estimate by a margin; without a champion, above that margin alone. Every check has a figure and a bound.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from models.bundle import Bundle
from models.decide import evaluate
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.rules import Rules
from training.bounds import Bounds
from training.evaluate import NOT_ENOUGH, Evaluation, Verdict, evaluate_policies
from training.fit import calibration_error
from training.judged import Log, read_log
from training.targets import Target

CANDIDATE, CURRENT = "candidate", "champion"
_SCORED, _CALIBRATED = 200, 5000
_HALF_AN_EVENT = 0.5
"""What unsubscribes are taken to be at least: where nobody left, a log of its length says no more of a rate than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: its figure, what it is held to, and whether it holds."""

    name: str
    figure: str
    bound: str
    is_passed: bool
    value: float
    """The figure as a number, nan where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the gate found."""

    checks: tuple[Check, ...]
    evaluation: Evaluation | None

    @property
    def is_open(self) -> bool:
        return all(check.is_passed for check in self.checks)

    @property
    def refusal(self) -> str:
        """Say which checks failed."""
        return ", ".join(check.name for check in self.checks if not check.is_passed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Who is to be promoted, by which log and rules, and who is champion now."""

    candidate: Bundle
    champion: Bundle | None
    url: str
    rules: Rules
    window: timedelta
    as_of: datetime | None = None
    folds: int = 3
    seed: int = 0
    most: int | None = None
    """Decisions of the log that are taken at most."""


def run_gate(
    contest: Contest,
    bounds: Bounds,
    measure: Callable[[Bundle, Log, Rules], float] | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> Gate:
    """Judge a candidate and the champion, and check it; `measure` tells a bundle's milliseconds for a decision.

    Raises
    ------
    LogUnusable: the log cannot judge anything.
    """
    candidate, champion = contest.candidate, contest.champion
    log = read_log(contest.url, contest.window, as_of=contest.as_of, most=contest.most)
    since = trained_until(candidate)
    unseen = int((log.data.decide_time >= since.timestamp() * 1e6).sum()) if since else len(log)
    is_seen = unseen < bounds.unseen
    if is_seen:
        since = None
    targets = [Target(name=CANDIDATE, rules=contest.rules, bundle=candidate)]
    if champion is not None:
        targets.append(Target(name=CURRENT, rules=contest.rules, bundle=champion))
    evaluation = evaluate_policies(
        contest.url,
        targets,
        contest.rules,
        contest.window,
        since=since,
        as_of=contest.as_of,
        folds=contest.folds,
        seed=contest.seed,
        most=contest.most,
        say=say,
        progress=progress,
    )
    found = {v.policy: v for v in evaluation.verdicts}
    mine, theirs = found[CANDIDATE], found.get(CURRENT)
    milliseconds = (measure or milliseconds_of)(candidate, log, contest.rules)
    checks = (
        _check_unseen(unseen, bounds, has_champion=champion is not None),
        _check_overlap(CANDIDATE, mine),
        *(() if theirs is None else (_check_overlap(CURRENT, theirs),)),
        _check_value(mine, theirs, bounds),
        _check_unsubscribes(mine, theirs, log, bounds),
        _check_cost(mine, theirs, bounds),
        _check_calibration(candidate, log, since, bounds),
        Check(
            name="time of a decision",
            figure=f"{milliseconds:.2f} ms in the median",
            bound=f"at most {bounds.milliseconds:g} ms",
            is_passed=milliseconds <= bounds.milliseconds,
            value=milliseconds,
        ),
    )
    return Gate(checks=checks, evaluation=evaluation)


def trained_until(bundle: Bundle) -> datetime | None:
    """Return the end of the last day of the log that a bundle was trained on, None where it does not say."""
    last = bundle.description.trained_on.get("last")
    return None if last is None else datetime.strptime(last, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)


def _check_unseen(unseen: int, bounds: Bounds, *, has_champion: bool) -> Check:
    return Check(
        name="decisions not trained on",
        figure=f"{unseen}"
        + ("" if unseen >= bounds.unseen else "; judged by all of the log, which flatters who was trained on it"),
        bound=f"at least {bounds.unseen}" + ("" if has_champion else " once there is a champion"),
        is_passed=unseen >= bounds.unseen or not has_champion,
        value=float(unseen),
    )


def _check_overlap(who: str, verdict: Verdict) -> Check:
    overlap = verdict.overlap
    return Check(
        name=f"overlap of the {who}",
        figure="; ".join(verdict.problems) or f"effective sample size {overlap.effective_sample_size:.0f}",
        bound="enough to give a figure",
        is_passed=not verdict.problems,
        value=overlap.effective_sample_size,
    )


def _check_value(mine: Verdict, theirs: Verdict | None, bounds: Bounds) -> Check:
    name = "net increment"
    margin = f"{bounds.margin:g}" if bounds.margin else "0"
    if mine.increment is None or (theirs is not None and theirs.increment is None):
        bound = f"lower bound above the champion's estimate by {margin}"
        return Check(name=name, figure=NOT_ENOUGH, bound=bound, is_passed=False, value=float("nan"))
    net = mine.increment.net
    low, high = net.interval()
    figure = f"{net.value:.3f} a message, 95 % from {low:.3f} to {high:.3f}"
    if theirs is None or theirs.increment is None:
        return Check(
            name=name,
            figure=figure,
            bound=f"lower bound above {margin}; there is no champion",
            is_passed=low > bounds.margin,
            value=low,
        )
    current = theirs.increment.net.value
    return Check(
        name=name,
        figure=figure,
        bound=f"lower bound above {current + bounds.margin:.3f}, the champion's estimate and {margin}",
        is_passed=low > current + bounds.margin,
        value=low,
    )


def _check_unsubscribes(mine: Verdict, theirs: Verdict | None, log: Log, bounds: Bounds) -> Check:
    name = "unsubscribes"
    least = _HALF_AN_EVENT / (len(log.data.unsubscribed) + 1)
    if theirs is not None and theirs.increment is not None:
        base, whose = max(theirs.increment.unsubscribes.value, least), "the champion's"
    else:
        base, whose = max(float(log.data.unsubscribed.mean()), least), "the log's"
    bound = f"at most {bounds.unsubscribe_ratio:g} x {whose} {1000 * base:.2f}"
    if mine.increment is None:
        return Check(name=name, figure=NOT_ENOUGH, bound=bound, is_passed=False, value=float("nan"))
    value = mine.increment.unsubscribes.value
    most = bounds.unsubscribe_ratio * base + mine.increment.unsubscribes.standard_error
    return Check(
        name=name,
        figure=f"{1000 * value:.2f} per 1000 messages",
        bound=f"{bound}, and a standard error of {1000 * mine.increment.unsubscribes.standard_error:.2f}",
        is_passed=value <= most,
        value=value,
    )


def _check_cost(mine: Verdict, theirs: Verdict | None, bounds: Bounds) -> Check:
    name = "cost"
    if mine.increment is None:
        return Check(name=name, figure=NOT_ENOUGH, bound="known", is_passed=False, value=float("nan"))
    cost = mine.increment.cost.value
    figure = f"{cost:.3f} a message"
    if theirs is None or theirs.increment is None:
        most, bound = (
            mine.increment.margin.value,
            f"at most the margin that it causes, {mine.increment.margin.value:.3f}",
        )
    else:
        most = bounds.cost_ratio * theirs.increment.cost.value
        bound = f"at most {bounds.cost_ratio:g} x the champion's {theirs.increment.cost.value:.3f}"
    return Check(name=name, figure=figure, bound=bound, is_passed=cost <= max(most, 1e-9), value=cost)


def _check_calibration(bundle: Bundle, log: Log, since: datetime | None, bounds: Bounds) -> Check:
    response, predicted = _predictions(bundle, log, since)
    error = calibration_error(response, predicted)
    return Check(
        name="calibration error",
        figure=f"{error:.4f} over tenths of {len(response)} decisions, {predicted.mean():.4f} expected, {response.mean():.4f} ordered",
        bound=f"at most {bounds.calibration_error:g}",
        is_passed=error <= bounds.calibration_error,
        value=error,
    )


def _predictions(bundle: Bundle, log: Log, since: datetime | None) -> tuple[np.ndarray, np.ndarray]:
    """Return whether customers ordered and what the bundle said of it, of up to 5000 of the latest decisions."""
    begin = max(0, len(log) - _CALIBRATED)
    response: list[float] = []
    predicted: list[float] = []
    for i, logged in enumerate(log.decisions()):
        if i < begin or (since is not None and logged.context.decide_time < since):
            continue
        actions = [Action(channel=NO_SEND)]
        if logged.send_time is not None:
            actions.append(Action(channel=logged.channel, send_time=logged.send_time))
        predicted.append(float(bundle.estimate(logged.context, actions, {}).p_response[-1]))
        response.append(float(log.data.response[i]))
    return np.array(response), np.array(predicted)


def milliseconds_of(bundle: Bundle, log: Log, rules: Rules) -> float:
    """Return how long a decision takes in the median, over 200 contexts of the log."""
    taken: list[float] = []
    for logged in log.decisions():
        begin = time.perf_counter()
        evaluate(logged.context, rules, bundle)
        taken.append(1000 * (time.perf_counter() - begin))
        if len(taken) == _SCORED:
            break
    if not taken:
        raise LogUnusable("the log has no decision to time a bundle by")
    return float(np.median(taken))


def transcript(checks: Sequence[Check]) -> str:
    """Return the checks as lines of text."""
    width = max(len(check.name) for check in checks)
    return "\n".join(
        f"  {'pass' if check.is_passed else 'FAIL'}  {check.name:{width}}  {check.figure}; {check.bound}"
        for check in checks
    )
