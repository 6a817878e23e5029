"""A funnel written by hand, so that tests need not train one."""

import math
from collections.abc import Mapping
from pathlib import Path

import lightgbm
import numpy as np

from models.bundle import Description, write_bundle
from models.curves import ChannelLag, FunnelDescription, StageWeights
from models.features import NO_SEND, Column
from models.rhythm import WEEK, RhythmTypes
from models.stage import Scaling

CHANNELS = ("in_app", "push", "email", "viber", "sms", "whatsapp")


def write_funnel(
    folder: Path, name: str = "by-hand", attention: Mapping[str, float] | None = None, clicked: float = 0.3
) -> str:
    """Write a bundle whose funnel knows the channel alone, and return its version.

    Half of the messages are noticed within half a day, the more the greater the channel's attention, by default 1; of those noticed 30 %,
    or as many as asked for, are clicked, and of those clicked 30 % lead to an order.
    """
    columns = (Column(name="channel", kind="category", categories=(NO_SEND, *CHANNELS)),)
    log_attention = [0.0] + [math.log((attention or {}).get(channel, 1.0)) for channel in CHANNELS]
    funnel = FunnelDescription(
        columns=columns,
        scaling=Scaling(means=(0.0,), deviations=(1.0,), has_missing=(False,)),
        rhythm=RhythmTypes(shares=(1.0,), weeks=((1.0,) * WEEK,), own_weight=50.0),
        lags={channel: _lag() for channel in CHANNELS},
        delivered=dict.fromkeys(CHANNELS, 0.97),
        stages={
            "notice": StageWeights(weights=((0.0,), *((x,) for x in log_attention))),
            "click": _alike(clicked),
            "order": _alike(0.3),
            "organic": _alike(0.03),
            "unsubscribe": _alike(0.01),
        },
        interest_deviation=1.0,
        scale=1.0,
    )
    codes = np.tile(np.arange(1.0 + len(CHANNELS)), 100).reshape(-1, 1)
    ordered = np.arange(len(codes)) % 10 == 0
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(codes, ordered, params={"verbose": -1}), num_boost_round=1)
    description = Description(columns=columns, calibration_slope=1.0, calibration_intercept=0.0, unsubscribe_rates={})
    return write_bundle(folder, name, description, booster.model_to_string(), codes[: len(CHANNELS) + 1], funnel)


def _alike(p: float) -> StageWeights:
    """Return a stage that says the same chance of every channel."""
    return StageWeights(weights=((_logit(p),), *((0.0,),) * (1 + len(CHANNELS))))


def _lag() -> ChannelLag:
    return ChannelLag(log_keep=tuple(math.log(0.12) - 0.2 * k for k in range(13)), power=1.0, log_hours=(0.0,) * 16)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
