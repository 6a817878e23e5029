"""The figures that an experiment or a goal is judged by: each a mean per customer, or a ratio of two sums, with its formula.

All are of what customers did within the window after their first exposure, in units of the currency.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.rules import Metric
from training.experiments.people import FloatArray, People
from training.experiments.statistics import Sample

Unit = Literal["money", "share", "count", "score"]
Figures = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One figure. Its value over customers is sum(top) / sum(bottom), or the mean of `top` where there is no bottom."""

    name: Metric
    unit: Unit
    top: Callable[[Figures], FloatArray]
    bottom: Callable[[Figures], FloatArray] | None = None
    before: Callable[[Figures], FloatArray] | None = None
    """Of the same customers before their exposure, for CUPED."""
    is_lower_better: bool = False

    def sample(self, people: People, place: int, *, with_before: bool = True) -> Sample:
        """Return the figure's entries of a variant, in the order in which windows ended."""
        mask = people.mask(place)
        covariate = self.before(people.before)[mask] if with_before and self.before is not None else None
        if covariate is not None and not covariate.any():
            covariate = None
        return Sample(
            values=self.top(people.figures)[mask],
            weights=None if self.bottom is None else self.bottom(people.figures)[mask],
            covariate=covariate,
            times=people.window_end[mask],
        )


def _take(name: str) -> Callable[[Figures], FloatArray]:
    return lambda figures: figures[name]


def _any(*names: str) -> Callable[[Figures], FloatArray]:
    """Return 1 for each customer who has one of these, else 0."""
    return lambda figures: np.asarray(sum(figures[name] for name in names) > 0, dtype=np.float64)


def _both(one: str, other: str) -> Callable[[Figures], FloatArray]:
    return lambda figures: np.asarray((figures[one] > 0) & (figures[other] > 0), dtype=np.float64)


def _all_orders(figures: Figures) -> FloatArray:
    return figures["orders"] + figures["store_orders"]


def _bought(figures: Figures) -> FloatArray:
    return np.asarray(_all_orders(figures) > 0, dtype=np.float64)


def _churned(figures: Figures) -> FloatArray:
    return 1.0 - figures["active_late"]


def _known_by_several(figures: Figures) -> FloatArray:
    return np.asarray(figures["identities"] > 1, dtype=np.float64)


KPIS: Mapping[str, Kpi] = {
    kpi.name: kpi
    for kpi in (
        Kpi(name="net_value", unit="money", top=_take("net"), before=_take("net")),
        Kpi(name="margin", unit="money", top=_take("margin"), before=_take("margin")),
        Kpi(name="revenue", unit="money", top=_take("revenue"), before=_take("revenue")),
        Kpi(name="orders", unit="count", top=_all_orders, before=_all_orders),
        Kpi(name="conversion", unit="share", top=_bought, before=_bought),
        Kpi(name="average_order", unit="money", top=_take("revenue"), bottom=_take("revenue_orders")),
        Kpi(name="purchase_frequency", unit="count", top=_all_orders, bottom=_bought),
        Kpi(name="spend", unit="money", top=_take("spend"), is_lower_better=True),
        Kpi(name="messages", unit="count", top=_take("messages"), is_lower_better=True),
        Kpi(name="paid_messages", unit="count", top=_take("paid_messages"), is_lower_better=True),
        Kpi(name="cost_per_order", unit="money", top=_take("spend"), bottom=_all_orders, is_lower_better=True),
        Kpi(name="unsubscribe_rate", unit="share", top=_take("unsubscribed"), is_lower_better=True),
        Kpi(name="complaint_rate", unit="share", top=_take("complained"), is_lower_better=True),
        Kpi(name="retention", unit="share", top=_take("active_late")),
        Kpi(name="churn", unit="share", top=_churned, is_lower_better=True),
        Kpi(name="lifetime_value", unit="money", top=_take("margin"), bottom=_churned),
        Kpi(name="store_purchases", unit="count", top=_take("store_orders")),
        Kpi(name="store_conversion", unit="share", top=_take("store_after_contact"), bottom=_take("contacted")),
        Kpi(name="multi_channel_share", unit="share", top=_both("orders", "store_orders"), bottom=_bought),
        Kpi(name="cross_channel_conversion", unit="share", top=_take("crossed"), bottom=_take("engaged")),
        Kpi(name="returns", unit="count", top=_take("returns"), is_lower_better=True),
        Kpi(name="match_rate", unit="share", top=_known_by_several),
        Kpi(name="csat", unit="score", top=_take("csat_sum"), bottom=_take("csat_count")),
        Kpi(name="nps", unit="score", top=_take("nps_score"), bottom=_take("nps_count")),
    )
}
"""Every metric of the rules file, by name."""
