"""Goals: a figure of all customers that is to change by a share until a day, looked at in equal periods from before its start on."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from models.rules import Goal, Rules
from training.experiments.kpis import KPIS
from training.experiments.people import newest_time, read_period


class Standing(StrEnum):
    """How a goal stands."""

    REACHED = "reached"
    ON_TRACK = "on_track"
    """At least as far as an even change would be by now."""
    BEHIND = "behind"
    TOO_EARLY = "too_early"
    """No period has ended since the start."""
    NO_DATA = "no_data"
    """Nothing to start from, or nothing to divide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The figure of one period, and what an even change would have made of it."""

    day: date
    """The day after its last."""
    value: float
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A goal with its checkpoints so far."""

    goal: Goal
    baseline: float
    target: float
    checkpoints: tuple[Checkpoint, ...]

    @property
    def standing(self) -> Standing:
        """Return how it stands by the latest checkpoint."""
        if not math.isfinite(self.baseline):
            return Standing.NO_DATA
        if not self.checkpoints:
            return Standing.TOO_EARLY
        last = self.checkpoints[-1]
        if not math.isfinite(last.value):
            return Standing.NO_DATA
        up = 1 if self.goal.change > 0 else -1
        if up * last.value >= up * self.target:
            return Standing.REACHED
        return Standing.ON_TRACK if up * last.value >= up * last.due else Standing.BEHIND


def track_goals(url: str, rules: Rules, until: datetime | None = None) -> list[Track]:
    """Return how the goals of the rules stand, by the log as of a time, its newest row by default."""
    last = newest_time(url)
    if last is None:
        return []
    now = last if until is None else min(last, until)
    return [_track(url, rules, goal, now) for goal in rules.goals]


def _track(url: str, rules: Rules, goal: Goal, now: datetime) -> Track:
    zone = ZoneInfo(rules.time_zone)
    step = timedelta(days=goal.checkpoint_days)
    baseline = goal.baseline if goal.baseline is not None else _figure(url, rules, goal, goal.start_date, zone)
    total = (goal.end_date - goal.start_date).days
    found, day = [], goal.start_date + step
    while day <= goal.end_date and _midnight(day, zone) <= now:
        due = baseline * (1 + goal.change * (day - goal.start_date).days / total)
        found.append(Checkpoint(day=day, value=_figure(url, rules, goal, day, zone), due=due))
        day += step
    return Track(goal=goal, baseline=baseline, target=baseline * (1 + goal.change), checkpoints=tuple(found))


def _figure(url: str, rules: Rules, goal: Goal, end: date, zone: ZoneInfo) -> float:
    """Return the figure of the days before a day."""
    begin = _midnight(end - timedelta(days=goal.checkpoint_days), zone)
    people = read_period(url, rules, begin, goal.checkpoint_days)
    if people is None:
        return math.nan
    sample = KPIS[goal.metric].sample(people, 0, with_before=False)
    bottom = float(len(sample.values)) if sample.weights is None else float(sample.weights.sum())
    return float(sample.values.sum()) / bottom if bottom else math.nan


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
