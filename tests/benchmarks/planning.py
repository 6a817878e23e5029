"""`python -m tests.benchmarks.planning [--calls 400]`: what response curves and planning a cascade cost, without trees.

Six channels with sixteen slots each, three steps, all features, a customer with thirty contacts and ninety-six active hours. Prints the median of
processor time over the calls; LightGBM's part is left out, since its cost is that of the trees.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np

from models.context import MOST_ACTIVE_HOURS, Contact, Content, Context, CustomerState, Message
from models.curves import AGE_BINS, HOUR_BINS, STAGES, ChannelLag, FunnelDescription, FunnelModel, StageWeights
from models.features import FEATURES, Column
from models.planner import Prices, value_cascades
from models.rhythm import WEEK, RhythmTypes
from models.sms import TextSize
from models.stage import Design, Scaling
from tests.benchmarks.figures import PLANNING, Measured

CHANNELS = ("in_app", "push", "email", "viber", "whatsapp", "sms")
PRICES = (0.0, 0.0, 0.0, 4.1e6, 4.0e6, 5.3e6)
SLOTS = 16
NOW = datetime(2026, 11, 4, 9, 25, tzinfo=UTC)
_HOUR = timedelta(hours=1)


def make_funnel(
    seed: int = 0, columns: tuple[Column, ...] | None = None, channels: tuple[str, ...] = CHANNELS
) -> FunnelModel:
    """Make a funnel over these columns, by default all features but those of time, with random weights and ten typical weeks."""
    rng = np.random.default_rng(seed)
    if columns is None:
        columns = tuple(
            Column(name=f.name, kind=f.kind, categories=() if f.kind == "number" else _categories(f.name))
            for f in FEATURES
            if f.of_time is None
        )
    scaling = Scaling(means=(0.0,) * len(columns), deviations=(1.0,) * len(columns), has_missing=(True,) * len(columns))
    design = Design(columns, scaling)

    def stage(score: float, relevance: tuple[float, ...] = ()) -> StageWeights:
        weights = rng.normal(scale=0.02, size=(1 + len(design.channels), design.width))
        weights[0, 0] = score
        return StageWeights(weights=tuple(tuple(map(float, row)) for row in weights), relevance=relevance)

    slopes = (0.6, *[0.0] * len(design.channels))
    scores = dict(zip(STAGES, (-0.2, -1.0, -1.5, -4.0, -4.5), strict=True))
    weeks = rng.gamma(4.0, size=(10, WEEK))
    lag = ChannelLag(log_keep=tuple(-2.0 - 0.3 * i for i in range(AGE_BINS)), power=0.9, log_hours=(0.05,) * HOUR_BINS)
    description = FunnelDescription(
        columns=columns,
        scaling=scaling,
        rhythm=RhythmTypes(
            shares=(0.1,) * 10,
            weeks=tuple(tuple(map(float, week)) for week in weeks / weeks.mean(axis=1, keepdims=True)),
            own_weight=160.0,
        ),
        lags=dict.fromkeys(channels, lag),
        delivered=dict.fromkeys(channels, 0.95),
        stages={name: stage(score, slopes if name in ("click", "order") else ()) for name, score in scores.items()},
        interest_deviation=1.5,
        scale=0.9,
    )
    return FunnelModel(description, {})


def _categories(name: str) -> tuple[str, ...]:
    return ("none", *CHANNELS) if name == "channel" else tuple(f"{name}-{i}" for i in range(6))


def make_context(hours: float, seed: int = 0) -> Context:
    """Make a decision about a message that lives so long, for a customer with a long history."""
    rng = np.random.default_rng(seed)
    contacts = tuple(
        Contact(
            decision_id=f"earlier-{i}",
            channel=CHANNELS[rng.integers(len(CHANNELS))],
            topic="",
            category="marketing",
            start=NOW - age * _HOUR,
            end=NOW - age * _HOUR,
            seen_time=NOW - age / 2 * _HOUR if rng.random() < 0.3 else None,
        )
        for i, age in enumerate(sorted(map(float, rng.uniform(1, 24 * 60, 30)), reverse=True))
    )
    first = int(NOW.timestamp()) // 3600 - 24 * 60
    active = tuple(sorted(int(first + h) for h in rng.choice(24 * 60, MOST_ACTIVE_HOURS, replace=False)))
    customer = CustomerState(
        key="person", time_zone="Europe/Moscow", country="RU", contacts=contacts, active_hours=active
    )
    message = Message(
        campaign="autumn",
        kind="message_kind-1",
        category="marketing",
        order_margin_micros=900_000_000,
        earliest_time=NOW,
        expire_time=NOW + hours * _HOUR,
        content=Content(size=TextSize(characters=60, encoding="ucs2", segments=1)),
        relevance_half_life_seconds=12 * 3600.0,
    )
    return Context(
        decision_id="decision",
        step=1,
        decide_time=NOW,
        not_before=NOW,
        customer=customer,
        message=message,
        options=(),
        seed=1,
    )


def median_ms(call: Callable[[], object], calls: int) -> float:
    """Return the median processor time of a call of this thread, in milliseconds."""
    spent = np.empty(calls)
    for i in range(calls):
        began = time.thread_time_ns()
        call()
        spent[i] = time.thread_time_ns() - began
    return float(np.median(spent)) / 1e6


def costs(calls: int) -> Iterator[tuple[int, int, float, float]]:
    """Return sends, cells, and what curves and plan cost in ms, for messages that live two and three days."""
    np.ones(
        1 << 20
    )  # as in a process that has read a bundle, glibc then keeps freed memory instead of giving it back at each call
    funnel = make_funnel()
    now = NOW.timestamp() / 3600
    for hours in (48, 72):
        context = make_context(hours - 0.5)
        starts = [now, *(float(int(now) + i * (hours - 1) // SLOTS) for i in range(1, SLOTS))]
        sends = [(channel, start) for channel in CHANNELS for start in starts]

        curves = funnel.curves(context, sends, (), 9e8, 3e8)
        price = np.repeat(PRICES, SLOTS)
        prices = Prices(micros=price, is_paid=price > 0, ready=curves.ready(1))
        of_curves = median_ms(partial(funnel.curves, context, sends, (), 9e8, 3e8), calls)
        of_plan = median_ms(partial(value_cascades, curves, prices, 3), calls)
        yield len(sends), curves.worth.shape[2], of_curves, of_plan


def measure(measured: Measured, calls: int) -> None:
    """Measure both sizes once."""
    for _, cells, of_curves, of_plan in costs(calls):
        measured.add(f"{PLANNING}, {cells} cells", "ms CPU", of_curves + of_plan)


def main() -> None:
    """Print the cost of curves and plan."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.planning", description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="calls of each")
    options = parser.parse_args()
    for sends, cells, of_curves, of_plan in costs(options.calls):
        print(
            f"{sends} sends, {cells} cells, 3 steps: "
            f"curves {of_curves:.2f} ms, plan {of_plan:.2f} ms, together {of_curves + of_plan:.2f} ms CPU"
        )


if __name__ == "__main__":
    main()
