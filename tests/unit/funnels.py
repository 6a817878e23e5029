"""Small funnels whose stages say what tests want them to say, of the channel alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from models.context import Context
from models.curves import AGE_BINS, HOUR_BINS, ChannelLag, FunnelDescription, FunnelModel, StageWeights
from models.features import Column
from models.rhythm import WEEK, RhythmTypes
from models.stage import Scaling
from tests.unit.examples import CONTEXT

CHANNELS = ("email", "none", "push", "sms")
FLAT = RhythmTypes(shares=(1.0,), weeks=((1.0,) * WEEK,), own_weight=20.0)
FADING = ChannelLag(log_keep=tuple(-2.0 - 0.3 * i for i in range(AGE_BINS)), power=1.0, log_hours=(0.0,) * HOUR_BINS)
STEADY = ChannelLag(log_keep=(-3.0,) * AGE_BINS, power=1.0, log_hours=(0.0,) * HOUR_BINS)


def stage(score: float, relevance: Sequence[float] = (), **own: float) -> StageWeights:
    """Return a stage of this score, and of that much more for the channels named."""
    weights = ((score,), *((own.get(channel, 0.0),) for channel in CHANNELS))
    return StageWeights(weights=weights, relevance=tuple(relevance))


STAGES = {
    "notice": stage(0.0),
    "click": stage(-1.0),
    "order": stage(-0.5),
    "organic": stage(-4.0),
    "unsubscribe": stage(-4.0),
}
DESCRIPTION = FunnelDescription(
    columns=(Column(name="channel", kind="category", categories=CHANNELS),),
    scaling=Scaling(means=(0.0,), deviations=(1.0,), has_missing=(False,)),
    rhythm=FLAT,
    lags={"push": FADING, "email": FADING, "sms": FADING},
    delivered={"push": 0.9, "email": 0.95, "sms": 0.97},
    stages=STAGES,
    interest_deviation=1.5,
    scale=1.0,
)


def funnel(stages: Mapping[str, StageWeights] | None = None, **changes: object) -> FunnelModel:
    """Return a funnel without trees, with these stages or other parts of its description changed."""
    description = replace(DESCRIPTION, stages=STAGES | dict(stages or {}), **changes)  # type: ignore[arg-type]  # fields by name
    return FunnelModel(description, {})


def hours_of(moment: datetime) -> float:
    """Return hours since 1970."""
    return moment.timestamp() / 3600


def lasting(
    hours: float, context: Context = CONTEXT, half_life: float | None = None, decide_time: datetime | None = None
) -> Context:
    """Return the context of a message that lives this long from its decision on, with a half-life in hours."""
    now = decide_time or context.decide_time
    message = replace(
        context.message,
        earliest_time=now,
        expire_time=now + timedelta(hours=hours),
        relevance_half_life_seconds=None if half_life is None else half_life * 3600,
    )
    return replace(context, decide_time=now, not_before=now, message=message)
