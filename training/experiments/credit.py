"""What part channels had in orders: who came first, last and in between, and a share of each order's credit for each of them.

The credit is the Shapley value of the game in which a set of channels is worth the margin of all orders whose contacts it holds: each
order then divides its margin evenly among the channels that contacted the customer before it (Zhao, Mahboobi & Bagheri (2018), "Shapley Value
Methods for Attribution Modeling in Online Advertising", arXiv:1804.05327, the simplified form for unordered paths). It counts orders that would have come anyway; what sending
causes is what the experiment says.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from training.experiments.people import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The part of one channel in the orders of a variant that came after a message."""

    channel: str
    first: int
    """Orders whose first contact it was."""
    assisting: int
    """Orders that it came before without being the last contact."""
    last: int
    credit: float
    """Its part of their margin, in units of the currency; over channels, the margin of all these orders."""
    credited_orders: float


def channel_roles(paths: Iterable[Path]) -> list[Role]:
    """Return each channel's part, the greatest credit first."""
    first: dict[str, int] = defaultdict(int)
    last: dict[str, int] = defaultdict(int)
    assisting: dict[str, int] = defaultdict(int)
    credit: dict[str, float] = defaultdict(float)
    orders: dict[str, float] = defaultdict(float)
    for path in paths:
        used = set(path.channels)
        first[path.channels[0]] += 1
        last[path.channels[-1]] += 1
        for channel in used:
            credit[channel] += path.margin / len(used)
            orders[channel] += 1 / len(used)
            assisting[channel] += channel != path.channels[-1]
    roles = [
        Role(
            channel=channel,
            first=first[channel],
            assisting=assisting[channel],
            last=last[channel],
            credit=credit[channel],
            credited_orders=orders[channel],
        )
        for channel in orders
    ]
    return sorted(roles, key=lambda role: (-role.credit, role.channel))
