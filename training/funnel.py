"""The funnel: a rare order learned from the denser things that lead to it.

    P(order | x, no send) = P_organic(x)
    P(order | x, a)       = P_organic(x) + scale x P_engage(x, a) x max(0, P_order(x, a | engaged) - P_organic(x))

Engaging is a click where the log has enough of them, else seeing. P_engage is learned from sends, P_order from sends that engaged,
P_organic from decisions whose message cannot have worked: those without a send, and sends that nobody engaged with. Who engages orders
more anyway, so the product alone claims too much or too little; `scale` makes the mean effect of what was sent fit the difference
that randomisation shows, drawn towards 1 where that difference is uncertain:

    scale = (m d / s^2 + 1 / t^2) / (m^2 / s^2 + 1 / t^2)

with d the observed difference of order rates, s its standard error, m the mean of the modelled effects, t = 0.5. Decisions without a send
are weighted by (1 - p) / p, p their propensity, so that both sides hold the same contexts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle import Funnel, combine
from models.features import BUILT_IN, NO_SEND
from training.dataset import Dataset
from training.grow import Hyperparameters, grow

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_LEAST_ENGAGED = 200
_LEAST_ORDERS = 30
_PRIOR_DEVIATION = 0.5
_MOST_SCALE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFunnel:
    """The stages' models, how they are read, and P(order) of the later part by models that did not see it."""

    texts: dict[str, str]
    description: Funnel
    p_later: FloatArray


def fit_funnel(
    data: Dataset, is_later: BoolArray, hyper: Hyperparameters, progress: Callable[[str], None]
) -> FittedFunnel | None:
    """Fit a funnel; None, after saying which stage has too little, where the log cannot teach one."""
    is_send = data.channel != NO_SEND
    engaged, engagement = _engagement(data, is_send)
    if engaged is None:
        progress(f"no funnel: fewer than {_LEAST_ENGAGED} sends were clicked or seen")
        return None
    orders = data.response[engaged]
    if min(orders.sum(), len(orders) - orders.sum()) < _LEAST_ORDERS:
        progress(
            f"no funnel: {orders.sum():.0f} of {len(orders)} engaged sends were followed by an order, {_LEAST_ORDERS} of each kind are needed"
        )
        return None
    organic_used = ~is_send | ~engaged
    organic_orders = data.response[organic_used]
    if min(organic_orders.sum(), len(organic_orders) - organic_orders.sum()) < _LEAST_ORDERS:
        progress(f"no funnel: {organic_orders.sum():.0f} orders came without a message, {_LEAST_ORDERS} are needed")
        return None
    of_context = data.matrix.copy()
    of_context[:, [i for i, c in enumerate(data.columns) if _is_of_action(c.name)]] = np.nan
    engage = grow(data, data.matrix, engaged.astype(np.float64), is_send, is_later, hyper)
    order = grow(data, data.matrix, data.response, engaged, is_later, hyper)
    organic = grow(data, of_context, data.response, organic_used, is_later, hyper)
    plain = Funnel(
        engage=engage.calibration,
        engaged_order=order.calibration,
        organic=organic.calibration,
        scale=1.0,
        engagement=engagement,
    )
    everyone = np.ones(len(data), dtype=bool)
    base = combine(plain, engage.raw, order.raw, organic.raw, ~everyone)
    effect = combine(plain, engage.raw, order.raw, organic.raw, everyone) - base
    description = Funnel(
        engage=plain.engage,
        engaged_order=plain.engaged_order,
        organic=plain.organic,
        scale=_scale(data, is_send, effect),
        engagement=engagement,
    )
    return FittedFunnel(
        texts={"engage": engage.text, "engaged_order": order.text, "organic": organic.text},
        description=description,
        p_later=combine(description, engage.raw_later, order.raw_later, organic.raw_later, is_send[is_later]),
    )


def _engagement(data: Dataset, is_send: BoolArray) -> tuple[BoolArray | None, str]:
    """Return which sends were engaged with, and by what: clicks where there are enough, else having been seen."""
    for name, happened in (("clicked", data.clicked), ("seen", data.seen)):
        engaged = is_send & (happened > 0)
        if _LEAST_ENGAGED <= engaged.sum() <= is_send.sum() - _LEAST_ENGAGED:
            return engaged, name
    return None, ""


def _is_of_action(name: str) -> bool:
    feature = BUILT_IN.get(name)
    return feature is not None and feature.of_context is None


def _scale(data: Dataset, is_send: BoolArray, effect: FloatArray) -> float:
    """Return the factor that fits the modelled effects of what was sent to the difference that randomisation shows."""
    propensity = data.propensity[~is_send]
    weight = (1 - propensity) / propensity
    if not weight.any():
        return 1.0
    sent, none = data.response[is_send], data.response[~is_send]
    organic = float(np.average(none, weights=weight))
    difference = float(sent.mean()) - organic
    variance = float(sent.var() / len(sent) + np.sum((weight * (none - organic)) ** 2) / weight.sum() ** 2)
    modelled = float(effect[is_send].mean())
    if variance <= 0:
        return 1.0
    prior = 1 / _PRIOR_DEVIATION**2
    found = (modelled * difference / variance + prior) / (modelled**2 / variance + prior)
    return float(np.clip(found, 0.0, _MOST_SCALE))
