"""Rates that the truth gives, in the terms of the retailer's aggregates that it is calibrated to."""

from dataclasses import dataclass, replace

import numpy as np

from training.world.oracle import find_candidates
from training.world.run import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Exact mean rates of sends through one channel: each message at its first allowed hour, to who can be reached."""

    sends: int
    open_rate: float
    click_to_open: float
    orders_per_click: float
    """Orders after a click, organic ones that it brought forward among them, as a last-click report counts them."""
    unsubscribe_rate: float


def channel_rates(world: World, channel: int, kind: int | None = None) -> Rates:
    """Return the rates of a channel over the world's messages, or those of one kind."""
    opened = clicked = ordered = refused = 0.0
    sends = 0
    for index in range(len(world.messages)):
        if kind is not None and world.messages.kind[index] != kind:
            continue
        context = world.context(index)
        found = find_candidates(replace(context, options=(context.options[channel],)), world.rules, is_whole_life=False)
        if len(found) == 0:
            continue
        first = np.zeros(1, dtype=np.int64)
        case = world.truth.case(index)
        curves = world.truth.curves(case, found.channel[first], found.hour[first], found.tiredness[first])
        alive = case.not_yet_organic[:, : case.lifetime]
        late = (alive - (1 - case.organic)[:, None]) + (1 - case.organic)[:, None] * curves.order[0]
        sends += 1
        opened += float(case.prior @ (curves.noticed[0] * alive).sum(axis=1))
        clicked += float(case.prior @ (curves.click[0] * alive).sum(axis=1))
        ordered += float(case.prior @ (curves.click[0] * late).sum(axis=1))
        refused += float(case.prior @ (curves.unsubscribe[0] * alive).sum(axis=1))
    return Rates(
        sends=sends,
        open_rate=opened / max(sends, 1),
        click_to_open=clicked / max(opened, 1e-12),
        orders_per_click=ordered / max(clicked, 1e-12),
        unsubscribe_rate=refused / max(sends, 1),
    )
