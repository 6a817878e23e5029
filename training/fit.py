"""Fitting the response model: LightGBM on features of context and action, calibrated on later data.

Two forms are fitted. The first is one model for all actions, no send among them (an S-learner: Kuenzel et al.
2019, "Metalearners for estimating heterogeneous treatment effects"). The second is a funnel (training.funnel), for logs where
orders are rare and seeing or clicking is not. The funnel serves, unless what the one model says that sends add is clearly nearer to the orders
of the later part than what the funnel says. Both are added to the same expectation of no send, that of the one model: orders are mostly
those that happen anyway, and who says these better would win whatever it says of sends. Decisions are split
by time: trees are grown on the earlier part, their number and the calibration (Platt 1999) come from the later part, then a model
of that many trees is grown on all.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.bundle import Description, write_bundle
from models.curves import FunnelDescription
from models.features import NO_SEND
from models.record import from_micros
from training.boosting import LOCAL, Engine
from training.dataset import Dataset, check_learnable
from training.funnel import fit_funnel
from training.grow import Hyperparameters, grow

FloatArray = NDArray[np.float64]
_BINS = 10
_GOLDEN_ROWS = 64
_RATE_WEIGHT = 200.0
_CLEARLY = 2.0
_UPLIFT = "later.uplift."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted model, how it is read, and how good it was on the later part."""

    model_text: str
    """The one model."""
    stage_texts: dict[str, str]
    """Trees of the funnel's stages; empty where the one model serves."""
    funnel: FunnelDescription | None
    """Present where the funnel serves."""
    description: Description
    golden_rows: FloatArray
    metrics: dict[str, float]
    later: Dataset
    p_later: FloatArray
    """P(response) of the later part by the model that did not see it, shape (n_later,)."""
    learning_curve: dict[str, list[float]] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)
    earlier_text: str = ""
    """The one model as it was grown on the earlier part alone."""


def fit(
    data: Dataset,
    hyper: Hyperparameters,
    log_name: str,
    progress: Callable[[str], None] = print,
    engine: Engine = LOCAL,
) -> Fitted:
    """Fit a response model; the same data and hyperparameters give the same bytes.

    Raises
    ------
    LogUnusable: the data cannot teach it.
    """
    check_learnable(data)
    is_later = split(data, hyper)
    later = data.take(is_later)
    check_learnable(data.take(~is_later))
    one = grow(data, data.matrix, data.response, np.ones(len(data), dtype=bool), is_later, hyper, engine)
    progress(f"{one.trees} trees chosen on {len(later)} later decisions; growing them on all {len(data)}")
    p_one = one.calibration.apply(one.raw_later)
    funnel = fit_funnel(data, is_later, hyper, progress, engine)
    metrics = {
        "trees": float(one.trees),
        "decisions": float(len(data)),
        "later.logloss_of_one_model": log_loss(later.response, p_one),
    }
    p_later = p_one
    if funnel is not None:
        metrics["later.logloss_of_funnel"] = log_loss(later.response, funnel.p_later)
        metrics |= {f"funnel.{name.removeprefix('funnel.')}": value for name, value in funnel.metrics.items()}
        p_none = one.calibration.apply(one.raw_later_none)
        p_by_funnel = np.clip(p_none + funnel.effect_later, 1e-6, 1 - 1e-6)
        metrics["later.logloss_of_funnel_with_same_no_send"] = log_loss(later.response, p_by_funnel)
        if is_clearly_better(later.response, p_one, p_by_funnel):
            progress(
                "the one model serves: what it says of sends is clearly nearer to the later orders than the funnel"
            )
            funnel = None
        else:
            p_later = funnel.p_later
            progress("the funnel serves")
    description = Description(
        columns=data.columns,
        calibration_slope=one.calibration.slope,
        calibration_intercept=one.calibration.intercept,
        unsubscribe_rates=_unsubscribe_rates(data),
        trained_on={
            "log": log_name,
            "digest": data.digest,
            "decisions": str(len(data)),
            **({} if data.sample is None else {"decisions_of_log": str(data.sample.of)}),
            "first": _day(data.decide_time[0]),
            "last": _day(data.decide_time[-1]),
            **{name: str(value) for name, value in asdict(hyper).items()},
        },
    )
    return Fitted(
        model_text=one.text,
        stage_texts={} if funnel is None else funnel.texts,
        funnel=None if funnel is None else funnel.description,
        description=description,
        golden_rows=_golden_rows(data, hyper.seed),
        metrics={**metrics, **measure(later, p_later)},
        later=later,
        p_later=p_later,
        learning_curve=one.learning_curve,
        importance=one.importance,
        earlier_text=one.earlier_text,
    )


def save(fitted: Fitted, folder: Path, name: str) -> str:
    """Write a fitted model as a bundle, and return its version."""
    return write_bundle(
        folder, name, fitted.description, fitted.model_text, fitted.golden_rows, fitted.funnel, fitted.stage_texts
    )


def split(data: Dataset, hyper: Hyperparameters) -> NDArray[np.bool_]:
    """Tell which decisions are the later part; those of one moment stay together. A log of one moment is split at random."""
    cut = data.decide_time[int(len(data) * (1 - hyper.later_share))]
    for is_later in (data.decide_time >= cut, data.decide_time > cut):
        if 0 < is_later.sum() < len(data):
            return np.asarray(is_later)
    return np.asarray(np.random.default_rng(hyper.seed).random(len(data)) < hyper.later_share)


def measure(data: Dataset, p: FloatArray) -> dict[str, float]:
    """Return what is usually asked of predictions on data that the model did not see, shape (n,)."""
    y = data.response
    rate = float(np.clip(y.mean(), 1e-12, 1 - 1e-12))
    metrics = {
        "later.decisions": float(len(y)),
        "later.response_rate": float(y.mean()),
        "later.logloss": log_loss(y, p),
        "later.logloss_of_rate": log_loss(y, np.full(len(y), rate)),
        "later.auc": auc(y, p),
        "later.calibration_error": calibration_error(y, p),
    }
    for channel in np.unique(data.channel):
        effect = observed_uplift(data, str(channel))
        if effect is not None:
            metrics[f"{_UPLIFT}{channel}"] = effect
            metrics[f"later.uplift_error.{channel}"] = uplift_error(data, str(channel))
    return metrics


def log_loss(y: FloatArray, p: FloatArray) -> float:
    """Return the mean of -log of the probability given to what happened; arrays have shape (n,)."""
    return float(_log_losses(y, p).mean())


def is_clearly_better(y: FloatArray, p: FloatArray, other: FloatArray) -> bool:
    """Tell whether predictions p have a mean log loss below the other's by more than twice the standard error of the difference."""
    difference = _log_losses(y, other) - _log_losses(y, p)
    return bool(difference.mean() > _CLEARLY * difference.std() / np.sqrt(len(y)))


def _log_losses(y: FloatArray, p: FloatArray) -> FloatArray:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    losses: FloatArray = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    return losses


def auc(y: FloatArray, p: FloatArray) -> float:
    """Return P(a responder is scored above a non-responder), ties counting half (Mann-Whitney)."""
    positives = float(y.sum())
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    return float((rankdata(p)[y == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(y: FloatArray, p: FloatArray, bins: int = _BINS) -> list[tuple[float, float, int]]:
    """Return (mean prediction, response rate, count) of bins of equal count, in order of prediction."""
    order = np.argsort(p, kind="stable")
    return [
        (float(p[part].mean()), float(y[part].mean()), len(part)) for part in np.array_split(order, bins) if len(part)
    ]


def calibration_error(y: FloatArray, p: FloatArray, bins: int = _BINS) -> float:
    """Return the mean distance of prediction and rate over bins of equal count (expected calibration error)."""
    found = reliability(y, p, bins)
    return sum(abs(mean - rate) * count for mean, rate, count in found) / len(y)


def observed_uplift(data: Dataset, channel: str) -> float | None:
    """Return the response rate under a channel less that under no send, each weighted by inverse propensity."""
    sent, none = data.channel == channel, data.channel == NO_SEND
    if channel == NO_SEND or not sent.any() or not none.any():
        return None
    weight = 1 / data.propensity
    return float(
        np.average(data.response[sent], weights=weight[sent]) - np.average(data.response[none], weights=weight[none])
    )


def uplift_error(data: Dataset, channel: str) -> float:
    """Return the standard error of the observed uplift of a channel, by the influence of each decision on the two weighted means."""
    variance = 0.0
    for mine in (data.channel == channel, data.channel == NO_SEND):
        weight, response = 1 / data.propensity[mine], data.response[mine]
        miss = weight * (response - np.average(response, weights=weight))
        variance += float((miss**2).sum() / weight.sum() ** 2)
    return float(np.sqrt(variance))


def told_uplifts(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the observed uplift of each channel with its 95 % interval, in words."""
    return {
        name.removeprefix(
            _UPLIFT
        ): f"{100 * value:+.2f} ± {196 * metrics[f'later.uplift_error.{name.removeprefix(_UPLIFT)}']:.2f} points"
        for name, value in metrics.items()
        if name.startswith(_UPLIFT)
    }


def _unsubscribe_rates(data: Dataset) -> dict[str, float]:
    """Return P(unsubscribe | send) by channel, drawn towards the rate over all channels; empty where nobody unsubscribed."""
    sent = data.channel != NO_SEND
    if not data.unsubscribed[sent].any():
        return {}
    overall = float(data.unsubscribed[sent].mean())
    rates: dict[str, float] = {}
    for channel in np.unique(data.channel[sent]):
        mine = data.unsubscribed[data.channel == channel]
        rates[str(channel)] = float((mine.sum() + _RATE_WEIGHT * overall) / (len(mine) + _RATE_WEIGHT))
    return rates


def _golden_rows(data: Dataset, seed: int) -> FloatArray:
    """Return rows to score again on load: some of the log, and rows of missing, unseen and extreme values."""
    rng = np.random.default_rng(seed)
    some = data.matrix[rng.choice(len(data), size=min(_GOLDEN_ROWS, len(data)), replace=False)]
    width = data.matrix.shape[1]
    odd = np.array([np.full(width, np.nan), np.zeros(width), np.full(width, 1e30), np.full(width, -1e30)])
    return np.vstack([some, odd])


def _day(micros: int) -> str:
    return from_micros(int(micros)).astimezone(UTC).strftime("%Y-%m-%d")
