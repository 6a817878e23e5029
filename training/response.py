"""What comes of a send by a fitted response model: what it is expected to earn, and a draw of what happens.

Expected, a send earns margin x (P(order | send) - P(order | no send)) and loses P(unsubscribe | send). What happens is drawn from the model's forecast (models.correction): delivered;
noticed in one of the forecast's groups of hours, evenly within it; if noticed clicked or not; a click causes an order with the mean gain of a click, an hour later; who
noticed and did not click may unsubscribe. A bundle without curves has neither notices nor clicks: an order caused comes half-way through the channel's wait. A bundle that was taught by a log without
clicks takes who noticed for one who clicked.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from models.actions import Estimate
from models.bundle import Bundle
from models.context import Context
from models.correction import GROUP_EDGES
from models.curves import PLAIN_KEPT
from models.features import NO_SEND, Action
from models.rules import Rules

SEEN = ("seen", "opened", "clicked", "unsubscribe", "complaint")
CLICKED = ("clicked",)
_HOUR = timedelta(hours=1)
_CERTAIN = 0.999
"""Share of those who noticed that click by a model that was taught no clicks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a model expects of one send, alone."""

    orders: float
    """P(order | send) - P(order | no send)."""
    organic: float
    """P(order | no send)."""
    unsubscribes: float
    click: float | None
    """P(click), None where the model knows of no clicks."""
    works_through: tuple[str, ...]
    """Outcomes of which the first is a click to the model."""
    estimate: Estimate

    @property
    def gain(self) -> float:
        """Orders that a click is expected to cause, 0 to 1."""
        if not self.click:
            return 0.0
        return min(max(self.orders / self.click, 0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What happened to one send; None: it did not."""

    undelivered: datetime | None = None
    seen: datetime | None = None
    clicked: datetime | None = None
    ordered: datetime | None = None
    """An order that the send caused."""
    unsubscribed: datetime | None = None


def expect(model: Bundle, context: Context, action: Action, rules: Rules) -> Expected:
    """Return what the model alone, without corrections, expects of a send."""
    rates = {key: channel.unsubscribe_rate for key, channel in rules.channels.items()}
    found = model.estimate(
        replace(context, factors={}), [Action(channel=NO_SEND), action], rates, rules.harm.unsubscribe
    )
    orders = float(found.p_response[1] - found.p_response[0])
    if found.curves is None:
        orders *= PLAIN_KEPT ** (context.step - 1) * _relevance(context, action)
    curves = found.curves
    takes_notice = curves is not None and float(curves.p_click[0]) >= _CERTAIN * float(curves.p_notice[0])
    return Expected(
        orders=orders,
        organic=float(found.p_response[0]),
        unsubscribes=float(found.p_unsubscribe[1]),
        click=None if curves is None else float(curves.p_click[0]),
        works_through=SEEN if takes_notice else CLICKED,
        estimate=found,
    )


def _relevance(context: Context, action: Action) -> float:
    half_life = context.message.relevance_half_life_seconds
    if half_life is None or action.send_time is None:
        return 1.0
    begin = context.message.earliest_time
    start = max(begin, context.decide_time) if context.step == 1 else begin
    return float(np.exp2(-(action.send_time - start).total_seconds() / half_life))


def happen(expected: Expected, action: Action, wait: timedelta, rng: np.random.Generator) -> Happened:
    """Draw what happens to a send."""
    assert action.send_time is not None  # no send has no outcome
    send, chance = action.send_time, rng.random(6)
    curves = expected.estimate.curves
    if curves is None or curves.forecasts is None or curves.row is None:
        return Happened(
            ordered=send + wait / 2 if chance[0] < expected.orders else None,
            unsubscribed=send + wait / 2 if chance[1] < expected.unsubscribes else None,
        )
    forecast = curves.forecasts.of_send(int(curves.row[0]))
    if chance[0] >= forecast.deliver:
        return Happened(undelivered=send + _HOUR / 4)
    passed = np.cumsum(forecast.notice)
    group = int(np.searchsorted(passed, -np.log1p(-chance[1]), side="right"))
    if group == len(passed):
        return Happened()
    edges = (0, *GROUP_EDGES)
    moment = send + (edges[group] + chance[2] * (edges[group + 1] - edges[group])) * _HOUR
    if chance[3] < forecast.click[group]:
        return Happened(seen=moment, clicked=moment, ordered=moment + _HOUR if chance[4] < expected.gain else None)
    return Happened(seen=moment, unsubscribed=moment if chance[5] < forecast.unsubscribe else None)
