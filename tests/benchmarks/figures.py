"""What is measured, what each figure may be at most today, and what it is to become."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SPREADS: Final[Mapping[str, float]] = {"alike": 0.0, "within 30 times": 1.5, "within a million times": 6.0}
"""Decades over which the deviations are spread of actions whose exact propensities are worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most a figure may be; where the goal is not reached, what was measured with a margin of 1.3, of latencies 2."""

    most: float
    goal: float


RATIO = "ChooseChannel DRY_RUN FULL / (grpc.aio echo + raw scoring)"
SCORING = "scoring / LightGBM's C API"
BATCH_RATIO = "BatchChooseChannel / unary, CPU of a decision"
STREAM_RATIO = "StreamChooseChannel / unary, CPU of a decision"
START = "process start to health SERVING"
START_CPU = "CPU from process start to health SERVING"
MEMORY = "resident memory of the serving process"
MLFLOW = "LIVE BASIC / mlflow models serve, CPU of a call, 16 in flight"
THROUGHPUT = "LIVE BASIC / mlflow models serve, calls a second, 16 in flight"
LATENCY = "p99 at half load / unloaded p50"
CURVES_RATIO = "ChooseChannel DRY_RUN {}, response curves / (grpc.aio echo + raw scoring)"
CURVES_BATCH_RATIO = "BatchChooseChannel of 100, response curves / (grpc.aio echo + raw scoring)"
PROPENSITY_RATIO = "exact propensities / 1000 draws"
PROPENSITY_ERROR = "greatest error of exact propensities"
PLANNING = "curves and plan, 6 channels x 16 slots x 3 steps"

LIMITS: Mapping[str, Limit] = {
    f"{RATIO}, 40 rows": Limit(most=5.7, goal=0.5),
    f"{RATIO}, 240 rows": Limit(most=3.1, goal=0.25),
    f"{SCORING}, 40 rows": Limit(most=0.17, goal=0.2),
    f"{SCORING}, 240 rows": Limit(most=0.13, goal=0.15),
    f"{BATCH_RATIO}, 40 rows": Limit(most=0.48, goal=1 / 3),
    f"{STREAM_RATIO}, 40 rows": Limit(most=0.83, goal=1 / 3),
    f"{CURVES_RATIO.format('FULL')}, 40 rows": Limit(most=7.0, goal=0.5),
    f"{CURVES_RATIO.format('BASIC')}, 40 rows": Limit(most=5.8, goal=0.5),
    f"{CURVES_BATCH_RATIO}, 40 rows": Limit(most=2.5, goal=0.5),
    f"{CURVES_RATIO.format('FULL')}, 240 rows": Limit(most=5.2, goal=0.25),
    f"{CURVES_RATIO.format('BASIC')}, 240 rows": Limit(most=4.7, goal=0.25),
    f"{CURVES_BATCH_RATIO}, 240 rows": Limit(most=3.3, goal=0.25),
    START: Limit(most=2.0, goal=0.6),
    START_CPU: Limit(most=0.6, goal=0.6),
    f"{MEMORY}, 40 rows": Limit(most=110.0, goal=110.0),
    f"{MEMORY}, 240 rows": Limit(most=110.0, goal=110.0),
    f"{MLFLOW}, inputs, 40 rows": Limit(most=0.7, goal=1 / 10),
    f"{MLFLOW}, inputs, 240 rows": Limit(most=0.34, goal=1 / 12),
    f"{LATENCY}, SQLite": Limit(most=6.0, goal=3.0),
    f"{LATENCY}, PostgreSQL": Limit(most=12.0, goal=3.0),
    **{f"{PROPENSITY_RATIO}, deviations {name}": Limit(most=1.1, goal=1.0) for name in SPREADS},
    **{f"{PROPENSITY_ERROR}, deviations {name}": Limit(most=1e-9, goal=1e-9) for name in SPREADS},
    f"{PLANNING}, 48 cells": Limit(most=1.0, goal=1.0),
    f"{PLANNING}, 72 cells": Limit(most=1.2, goal=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, measured once a round."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Measured:
    """Gathers figures while the rounds run, in the order in which they first come."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, name: str, unit: str, value: float) -> float:
        self._values.setdefault((name, unit), []).append(value)
        return value

    def figures(self) -> list[Figure]:
        return [Figure(name=name, unit=unit, values=tuple(values)) for (name, unit), values in self._values.items()]


def beyond_limits(figures: Iterable[Figure]) -> list[str]:
    """Return a sentence for each figure whose median is beyond its limit."""
    return [
        f"{figure.name}: {figure.median:.3g} {figure.unit} is beyond its limit of {LIMITS[figure.name].most:g}"
        for figure in figures
        if figure.name in LIMITS and figure.median > LIMITS[figure.name].most
    ]


def to_markdown(figures: Iterable[Figure], machine: Mapping[str, str]) -> str:
    """Return the machine and the figures as Markdown."""
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "| figure | unit | median | min to max | limit | goal |", "|---|---|---:|---:|---:|---:|"]
    for figure in figures:
        limit = LIMITS.get(figure.name)
        bounds = f"{limit.most:g} | {limit.goal:g}" if limit is not None else " | "
        spread = f"{_digits(min(figure.values))} to {_digits(max(figure.values))}"
        lines.append(f"| {figure.name} | {figure.unit} | {_digits(figure.median)} | {spread} | {bounds} |")
    return "\n".join(lines)


def to_json(figures: Sequence[Figure], machine: Mapping[str, str], arguments: Mapping[str, object]) -> str:
    """Return the same as JSON, with every round's value."""
    found = [
        {
            "name": figure.name,
            "unit": figure.unit,
            "values": figure.values,
            "median": figure.median,
            "min": min(figure.values),
            "max": max(figure.values),
            "limit": LIMITS[figure.name].most if figure.name in LIMITS else None,
            "goal": LIMITS[figure.name].goal if figure.name in LIMITS else None,
        }
        for figure in figures
    ]
    return json.dumps({"machine": machine, "arguments": arguments, "figures": found}, indent=1)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
