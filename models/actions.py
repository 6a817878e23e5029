"""The eligible actions of one decision with what each is expected to earn.

    incremental value = order margin x uplift, uplift = P(order | send) - P(order | no send)
    plan value        = net value with the best cascade that may follow (models.planner)
    net value         = incremental value - price x (1 + shadow price) - P(unsubscribe | send) x harm of an unsubscribe

Where the model does not know of time, uplift is taken times the relevance left at the send, which halves with each half-life of the
message; where it draws curves (models.curves), relevance is in them. No send is the first action and is worth nothing. Money is a float of micros
here, as an expectation; only prices and payments are integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.budget import shadow_price_of
from models.context import Context
from models.curves import PLAIN_KEPT, Sketch
from models.eligibility import EligibleChannel
from models.features import NO_SEND
from models.rules import Rules
from models.slate import Action, Actions

FloatArray = NDArray[np.float64]
_NO_SEND = Action(channel=NO_SEND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the model believes of a list of actions: arrays of shape (n,), each a probability in [0, 1]."""

    p_response: FloatArray
    p_unsubscribe: FloatArray
    curves: Sketch | None = None
    """Of the sends among them, where the model draws curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionTable:
    """Eligible actions, the first of them no send, with their values. All arrays have shape (n,)."""

    actions: tuple[Action, ...]
    is_paid: NDArray[np.bool_]
    price_micros: FloatArray
    p_response: FloatArray
    p_unsubscribe: FloatArray
    uplift: FloatArray
    incremental_micros: FloatArray
    harm_micros: FloatArray
    net_micros: FloatArray
    plan_micros: FloatArray
    """Net value with the best cascade that may follow; what a policy chooses by."""
    deviation_micros: FloatArray
    """Standard deviation of the plan value's estimate; 0 where the estimate is taken as certain."""
    shadow_price: FloatArray
    """Money that one unit of the budgets which count the send is worth beside itself; 0 where none binds."""
    curves: Sketch | None = None
    """Of the sends, in their order; not kept in the log."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def listed(self) -> Actions:
        """The actions with what follows from them alone."""
        return Actions.of(self.actions)

    def keep(self, mask: NDArray[np.bool_]) -> "ActionTable":
        """Return the table of the actions for which the mask, shape (n,), is true."""
        if mask.all():
            return self
        arrays = {name: getattr(self, name)[mask] for name in _ARRAYS}
        curves = None if self.curves is None else self.curves.keep(mask[self.listed.is_send])
        return ActionTable(actions=self.listed.part(mask), curves=curves, **arrays)

    def with_plan(self, plan_micros: FloatArray) -> "ActionTable":
        """Return the table with these plan values."""
        return self._with(plan_micros, self.curves)

    def without_curves(self) -> "ActionTable":
        """Return the table as the log keeps it."""
        return self if self.curves is None else self._with(self.plan_micros, None)

    def _with(self, plan_micros: FloatArray, curves: Sketch | None) -> "ActionTable":
        """Return the table with these; `dataclasses.replace` takes three times as long."""
        return ActionTable(
            actions=self.actions,
            is_paid=self.is_paid,
            price_micros=self.price_micros,
            p_response=self.p_response,
            p_unsubscribe=self.p_unsubscribe,
            uplift=self.uplift,
            incremental_micros=self.incremental_micros,
            harm_micros=self.harm_micros,
            net_micros=self.net_micros,
            plan_micros=plan_micros,
            deviation_micros=self.deviation_micros,
            shadow_price=self.shadow_price,
            curves=curves,
        )


_ARRAYS = (
    "is_paid",
    "price_micros",
    "p_response",
    "p_unsubscribe",
    "uplift",
    "incremental_micros",
    "harm_micros",
    "net_micros",
    "plan_micros",
    "deviation_micros",
    "shadow_price",
)


_MOST_LISTED = 32
_listed: dict[tuple[tuple[str, int], ...], tuple[Actions, Sequence[EligibleChannel]]] = {}
"""Lists by channels and identity of their slots, and what keeps these slots from being others'."""


def list_actions(eligible: Sequence[EligibleChannel]) -> Actions:
    """Return no send and then every eligible channel with each of its slots; the same object for the same slots of the same channels."""
    key = tuple((c.channel, id(c.slots)) for c in eligible)
    found = _listed.get(key)
    if found is None:
        sends = [Action(channel=c.channel, send_time=slot.start) for c in eligible for slot in c.slots]
        if len(_listed) >= _MOST_LISTED:
            _listed.clear()
        found = _listed[key] = (Actions((_NO_SEND, *sends)), tuple(eligible))
    return found[0]


def value_actions(
    context: Context,
    rules: Rules,
    eligible: Sequence[EligibleChannel],
    estimate: Estimate,
    listed: Actions | None = None,
) -> ActionTable:
    """Put a value on every action of `list_actions(eligible)`, or `listed` where that is at hand, of which `estimate` holds the probabilities.

    A send with a price pays the shadow price of each of the context's budgets that counts it.
    """
    actions = list_actions(eligible) if listed is None else listed
    (found,) = value_each([context], rules, [eligible], [estimate], actions)
    return found


def value_each(
    contexts: Sequence[Context],
    rules: Rules,
    eligible: Sequence[Sequence[EligibleChannel]],
    estimates: Sequence[Estimate],
    actions: Actions,
) -> list[ActionTable]:
    """Put a value on the same actions in k contexts, whose channels may differ in their prices alone; see `value_actions`."""
    of = actions.once("eligible", lambda: _repeated(eligible[0]))
    price = np.array([[0.0, *(float(c.price_micros) for c in of_one)] for of_one in eligible])[:, of]
    shadow_price = np.zeros_like(price)
    if any(context.budgets for context in contexts):
        worth = [
            [0.0, *(shadow_price_of(context.budgets, c.channel) if c.price_micros else 0.0 for c in of_one)]
            for context, of_one in zip(contexts, eligible, strict=True)
        ]
        shadow_price = np.array(worth)[:, of]
    is_paid = np.array([False, *(c.is_paid for c in eligible[0])], dtype=np.bool_)[of]
    p_response = np.array([estimate.p_response for estimate in estimates])
    p_unsubscribe = np.array([estimate.p_unsubscribe for estimate in estimates])
    p_unsubscribe[:, 0] = 0.0
    uplift = p_response - p_response[:, :1]
    margin = np.array([_margin(context, estimate) for context, estimate in zip(contexts, estimates, strict=True)])
    incremental = margin[:, None] * uplift
    for row, context, estimate in zip(incremental, contexts, estimates, strict=True):
        if estimate.curves is None and context.message.relevance_half_life_seconds is not None:
            row *= _relevance(context, actions, context.message.relevance_half_life_seconds)
    harm = p_unsubscribe * rules.harm.unsubscribe
    net = incremental - price * (1 + shadow_price) - harm
    return [
        ActionTable(
            actions=actions,
            is_paid=is_paid,
            price_micros=price[i],
            p_response=p_response[i],
            p_unsubscribe=p_unsubscribe[i],
            uplift=uplift[i],
            incremental_micros=incremental[i],
            harm_micros=harm[i],
            net_micros=net[i],
            plan_micros=net[i],
            deviation_micros=np.zeros(len(actions)),
            shadow_price=shadow_price[i],
            curves=estimate.curves,
        )
        for i, estimate in enumerate(estimates)
    ]


def _margin(context: Context, estimate: Estimate) -> float:
    """Return what the uplift of a send counts for; where the model draws no curves, less with each earlier step."""
    margin = context.message.order_margin_micros
    return float(margin) if estimate.curves is not None else PLAIN_KEPT ** (context.step - 1) * margin


def _repeated(eligible: Sequence[EligibleChannel]) -> NDArray[np.intp]:
    """Return the place of each action's channel among the eligible ones, from 1; 0 of no send."""
    return np.repeat(np.arange(len(eligible) + 1), [1, *(len(c.slots) for c in eligible)])


def _relevance(context: Context, actions: Actions, half_life: float) -> FloatArray:
    start = (
        max(context.message.earliest_time, context.decide_time) if context.step == 1 else context.message.earliest_time
    )
    lag = actions.once(("lag", start), lambda: _lags(actions, start))
    return np.exp2(-lag / half_life)


def _lags(actions: Actions, start: datetime) -> FloatArray:
    """Return the seconds from a time to each send, 0 of no send."""
    return np.array([0.0 if a.send_time is None else (a.send_time - start).total_seconds() for a in actions])
