"""Fitting the response model: LightGBM on features of context and action, calibrated on later data.

The model is one for all actions, no send among them (an S-learner: Kuenzel et al. 2019, "Metalearners for estimating heterogeneous
treatment effects"); uplift is the difference of two of its predictions. Decisions are split by time: trees are grown on the earlier
part, their number and the calibration (Platt 1999) come from the later part, then a model of that many trees is grown on all.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

from models.bundle import Description
from models.features import NO_SEND
from models.record import from_micros
from training.dataset import Dataset, check_learnable

FloatArray = NDArray[np.float64]
_BINS = 10
_GOLDEN_ROWS = 64
_RATE_WEIGHT = 200.0
_LEAST_OF_EACH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What the fit is told. The defaults suit logs of 10^4 to 10^6 decisions."""

    trees: int = 600
    """The most trees; early stopping takes fewer."""
    leaves: int = 8
    min_rows_in_leaf: int = 100
    learning_rate: float = 0.03
    l2: float = 10.0
    row_share: float = 0.8
    patience: int = 50
    """Trees without improvement after which growing stops."""
    later_share: float = 0.25
    """Share of decisions, the latest, that choose the number of trees and calibrate."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted model, how it is read, and how good it was on the later part."""

    model_text: str
    description: Description
    golden_rows: FloatArray
    metrics: dict[str, float]
    later: Dataset
    p_later: FloatArray
    """P(response) of the later part by the model that did not see it, shape (n_later,)."""
    learning_curve: dict[str, list[float]] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)


def fit(data: Dataset, hyper: Hyperparameters, log_name: str, progress: Callable[[str], None] = print) -> Fitted:
    """Fit a response model; the same data and hyperparameters give the same bytes.

    Raises
    ------
    LogUnusable: the data cannot teach it.
    """
    check_learnable(data)
    is_later = _split(data, hyper)
    earlier, later = data.take(~is_later), data.take(is_later)
    check_learnable(earlier)
    curve: dict[str, dict[str, list[float]]] = {}
    trial = lgb.train(
        _parameters(hyper),
        _lgb_data(earlier),
        num_boost_round=hyper.trees,
        valid_sets=[_lgb_data(earlier), _lgb_data(later)],
        valid_names=["earlier", "later"],
        callbacks=[lgb.early_stopping(hyper.patience, verbose=False), lgb.record_evaluation(curve)],
    )
    trees = max(1, trial.best_iteration)
    raw = np.asarray(trial.predict(later.matrix, raw_score=True, num_iteration=trees))
    slope, intercept = calibrate(raw, later.response)
    p_later = 1 / (1 + np.exp(-(slope * raw + intercept)))
    progress(f"{trees} trees chosen on {len(later)} later decisions; growing them on all {len(data)}")
    final = lgb.train(_parameters(hyper), _lgb_data(data), num_boost_round=trees)
    description = Description(
        columns=data.columns,
        calibration_slope=slope,
        calibration_intercept=intercept,
        unsubscribe_rates=_unsubscribe_rates(data),
        trained_on={
            "log": log_name,
            "digest": data.digest,
            "decisions": str(len(data)),
            "first": _day(data.decide_time[0]),
            "last": _day(data.decide_time[-1]),
            **{name: str(value) for name, value in asdict(hyper).items()},
        },
    )
    names = [column.name for column in data.columns]
    gains = final.feature_importance(importance_type="gain")
    return Fitted(
        model_text=final.model_to_string(),
        description=description,
        golden_rows=_golden_rows(data, hyper.seed),
        metrics={"trees": float(trees), "decisions": float(len(data)), **measure(later, p_later)},
        later=later,
        p_later=p_later,
        learning_curve={name: values["binary_logloss"] for name, values in curve.items()},
        importance=dict(zip(names, map(float, gains), strict=True)),
    )


def _parameters(hyper: Hyperparameters) -> dict[str, object]:
    return {
        "objective": "binary",
        "learning_rate": hyper.learning_rate,
        "num_leaves": hyper.leaves,
        "min_data_in_leaf": hyper.min_rows_in_leaf,
        "lambda_l2": hyper.l2,
        "bagging_fraction": hyper.row_share,
        "bagging_freq": 1,
        "min_data_per_group": 50,
        "seed": hyper.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 2,
        "verbosity": -1,
    }


def _lgb_data(data: Dataset) -> lgb.Dataset:
    categorical = [i for i, column in enumerate(data.columns) if column.kind == "category"]
    names = [column.name for column in data.columns]
    return lgb.Dataset(
        data.matrix, label=data.response, categorical_feature=categorical, feature_name=names, params={"verbosity": -1}
    )


def _split(data: Dataset, hyper: Hyperparameters) -> NDArray[np.bool_]:
    """Tell which decisions are the later part; those of one moment stay together. A log of one moment is split at random."""
    cut = data.decide_time[int(len(data) * (1 - hyper.later_share))]
    for is_later in (data.decide_time >= cut, data.decide_time > cut):
        if 0 < is_later.sum() < len(data):
            return np.asarray(is_later)
    return np.random.default_rng(hyper.seed).random(len(data)) < hyper.later_share


def calibrate(raw: FloatArray, response: FloatArray) -> tuple[float, float]:
    """Fit slope and intercept of the logit in the raw score by maximum likelihood; a slope that is not positive is refused.

    Raw scores and responses have shape (n,). Where the later part cannot tell, with less than 20 of either response, the raw score is
    taken as it is: a few responses that happen to be separable would make certainties of all predictions.
    """
    if min(response.sum(), len(response) - response.sum()) < _LEAST_OF_EACH:
        return 1.0, 0.0

    def loss(theta: FloatArray) -> float:
        logit = theta[0] * raw + theta[1]
        return float(np.mean(np.logaddexp(0, logit) - response * logit))

    found = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    if not np.all(np.isfinite(found)) or found[0] <= 0:
        return 1.0, 0.0
    return float(found[0]), float(found[1])


def measure(data: Dataset, p: FloatArray) -> dict[str, float]:
    """Return what is usually asked of predictions on data that the model did not see, shape (n,)."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    y = data.response
    rate = float(np.clip(y.mean(), 1e-12, 1 - 1e-12))
    metrics = {
        "later.decisions": float(len(y)),
        "later.response_rate": float(y.mean()),
        "later.logloss": float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))),
        "later.logloss_of_rate": float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))),
        "later.auc": auc(y, p),
        "later.calibration_error": calibration_error(y, p),
    }
    for channel in np.unique(data.channel):
        effect = observed_uplift(data, str(channel))
        if effect is not None:
            metrics[f"later.uplift.{channel}"] = effect
    return metrics


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
