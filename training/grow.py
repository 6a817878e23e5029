"""Growing one LightGBM model for one label, with its number of trees and calibration from the later part of the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.bundle import Calibration
from models.features import NO_SEND, Column, is_of_context
from training.boosting import LOCAL, Engine, Rows
from training.dataset import Dataset

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_LEAST_OF_EACH = 20
_TREES_UNSEEN = 50
"""Trees where the later part is too thin to choose their number."""


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
    interest_deviation: float = 1.0
    """Spread of a customer's interest in one message, as a logit; no single-step log can tell it."""
    order_interest: float = 0.6
    """How much of that spread carries over to ordering after a click; no single-step log can tell it either."""
    later_share: float = 0.25
    """Share of decisions, the latest, that choose the number of trees and calibrate."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A model grown on all its rows, and what the later part said of one grown on the earlier."""

    text: str
    trees: int
    calibration: Calibration
    raw_later: FloatArray
    """Raw scores, by the model of the earlier part, of all later rows, shape (n_later,)."""
    raw_later_none: FloatArray
    """Likewise of the same rows had nothing been sent."""
    raw: FloatArray
    """Raw scores, by the model of all, of all rows, shape (n,)."""
    learning_curve: dict[str, list[float]] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)
    earlier_text: str = ""
    """The model of the earlier part."""


def grow(
    data: Dataset,
    matrix: FloatArray,
    label: FloatArray,
    used: BoolArray,
    is_later: BoolArray,
    hyper: Hyperparameters,
    engine: Engine = LOCAL,
) -> Grown:
    """Grow a model of a label on the rows used; arrays have shape (n,), `matrix` (n, n_columns)."""
    earlier, later = used & ~is_later, used & is_later
    settings = parameters(hyper, int(used.sum()))
    train = _rows(data, matrix, label, earlier)
    can_choose = min(label[later].sum(), later.sum() - label[later].sum()) >= _LEAST_OF_EACH
    curves: Mapping[str, list[float]] = {}
    if can_choose:
        chosen = engine.choose(settings, train, _rows(data, matrix, label, later), hyper.trees, hyper.patience)
        trial, trees, curves = chosen.booster, max(1, chosen.trees), chosen.curves
    else:
        trees = min(_TREES_UNSEEN, hyper.trees)
        trial = engine.grow(settings, train, trees)
    raw_later, raw_none = (
        np.asarray(trial.predict(rows, raw_score=True, num_iteration=trees), dtype=np.float64)
        for rows in (matrix[is_later], as_no_send(data.columns, matrix[is_later]))
    )
    slope, intercept = calibrate(raw_later[used[is_later]], label[later])
    final = engine.grow(settings, _rows(data, matrix, label, used), trees)
    gains = final.feature_importance(importance_type="gain")
    return Grown(
        text=final.model_to_string(),
        trees=trees,
        calibration=Calibration(slope=slope, intercept=intercept),
        raw_later=raw_later,
        raw_later_none=raw_none,
        raw=np.asarray(final.predict(matrix, raw_score=True), dtype=np.float64),
        learning_curve=dict(curves),
        importance={c.name: float(g) for c, g in zip(data.columns, gains, strict=True)},
        earlier_text=trial.model_to_string(num_iteration=trees),
    )


def as_no_send(columns: Sequence[Column], matrix: FloatArray) -> FloatArray:
    """Return the rows as they would be had nothing been sent, shape (n, n_columns): without what is of a channel or a time."""
    found = matrix.copy()
    for i, column in enumerate(columns):
        if column.name == "channel":
            found[:, i] = column.codes.get(NO_SEND, np.nan)
        elif not is_of_context(column.name):
            found[:, i] = np.nan
    return found


def parameters(hyper: Hyperparameters, rows: int) -> dict[str, object]:
    """Return LightGBM's parameters for so many rows."""
    return {
        "objective": "binary",
        "learning_rate": hyper.learning_rate,
        "num_leaves": hyper.leaves,
        "min_data_in_leaf": min(hyper.min_rows_in_leaf, max(20, rows // 50)),
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


def _rows(data: Dataset, matrix: FloatArray, label: FloatArray, mask: BoolArray) -> Rows:
    return Rows(
        matrix=matrix[mask],
        label=label[mask],
        categories=tuple(i for i, column in enumerate(data.columns) if column.kind == "category"),
        names=tuple(column.name for column in data.columns),
    )


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
