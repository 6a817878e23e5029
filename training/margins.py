"""What a caller may know of a customer's worth: the margin of one order that a message causes.

The service multiplies a difference of response probabilities by the margin of an order. On a log where messages also make baskets
larger, the right margin is the spend that one additional responder brings, not the average order: a LightGBM regression of the spend
of responders on the caller's covariates, times kappa = (difference of mean spend) / (difference of mean margin x response) between
the widest channel and no send, both measured on randomised decisions with inverse propensities.
"""

from collections.abc import Mapping, Sequence

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.context import FeatureValue
from models.errors import LogUnusable
from models.features import NO_SEND, Column, Encoder
from training.dataset import find_columns

FloatArray = NDArray[np.float64]
_MOST_SPEND = 200.0
"""Spend above this, in units of the currency, is cut when margins are fitted: a few baskets must not set everybody's."""
_PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}
_TREES = 100


class MarginModel:
    """Margin of one caused order, from a caller's covariates."""

    def __init__(self, columns: Sequence[Column], booster: lgb.Booster, kappa: float) -> None:
        self._encoder = Encoder(columns)
        self._booster = booster
        self.kappa = kappa

    def predict(self, features: Sequence[Mapping[str, FeatureValue]]) -> FloatArray:
        """Return margins in units of the currency, shape (n,), never negative."""
        rows = np.array([self._encoder.encode_values(_prefixed(values)) for values in features])
        predicted: FloatArray = np.asarray(self._booster.predict(rows), dtype=np.float64)
        return self.kappa * np.maximum(predicted, 0.0)


def fit_margins(
    features: Sequence[Mapping[str, FeatureValue]],
    lead: NDArray[np.str_],
    propensity: FloatArray,
    spend: FloatArray,
    widest: str,
    seed: int,
) -> MarginModel:
    """Fit margins on randomised decisions; arrays have shape (n,), `propensity` is P(lead), in (0, 1].

    Raises
    ------
    LogUnusable: nobody ordered under the widest channel, or it has no effect to scale to, or there is no no send to compare with.
    """
    responded = spend > 0
    used = responded & (lead == widest)
    if not used.any():
        raise LogUnusable(
            f"no decision with a send through {widest} was followed by an order; margins cannot be fitted"
        )
    if not (lead == NO_SEND).any():
        raise LogUnusable("no decision of the log is a no send; without them the gain of a send cannot be told")
    named = [_prefixed(values) for values in features]
    columns = find_columns(named)
    encoder = Encoder(columns)
    rows = np.array([encoder.encode_values(values) for values in named])
    data = lgb.Dataset(
        rows[used],
        label=np.minimum(spend[used], _MOST_SPEND),
        categorical_feature=[i for i, column in enumerate(columns) if column.kind == "category"],
        params={"verbosity": -1},
    )
    booster = lgb.train({**_PARAMETERS, "seed": seed}, data, num_boost_round=_TREES)
    expected = np.maximum(np.asarray(booster.predict(rows)), 0.0) * responded

    def effect(outcome: FloatArray) -> float:
        sent, none = lead == widest, lead == NO_SEND
        weight = 1 / propensity
        return float(np.average(outcome[sent], weights=weight[sent]) - np.average(outcome[none], weights=weight[none]))

    gained, modelled = effect(np.minimum(spend, _MOST_SPEND)), effect(expected)
    if gained <= 0 or modelled <= 0:
        raise LogUnusable(f"sending through {widest} shows no gain over no send; margins cannot be scaled")
    return MarginModel(columns, booster, gained / modelled)


def _prefixed(values: Mapping[str, FeatureValue]) -> dict[str, FeatureValue]:
    return {f"x.{name}": value for name, value in values.items()}
