"""Messages of the simulated retailer: a stream that does not depend on what any policy does."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rules import Category
from training.world.people import PRODUCTS, Population
from training.world.zones import week_hours_of_all

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

KINDS = (
    "abandoned_cart",
    "abandoned_view",
    "price_drop",
    "newsletter",
    "cross_sell",
    "welcome",
    "delivery_notice",
    "order_confirmation",
)
CART, VIEW, PRICE_DROP, NEWSLETTER, CROSS_SELL, WELCOME, DELIVERY_NOTICE, ORDER_CONFIRMATION = range(8)
CATEGORIES: tuple[Category, ...] = (*("marketing",) * 6, "service", "transactional")
"""Of each kind; all but marketing is owed to the customer."""
IS_OWED = np.array([category != "marketing" for category in CATEGORIES])
_SHARES = np.array([0.15, 0.22, 0.13, 0.30, 0.15, 0.05, 0.0, 0.0])
_OWED_SHARES = np.array([0, 0, 0, 0, 0, 0, 0.6, 0.4])
_MARGINS = np.array([1000.0, 800.0, 750.0, 600.0, 450.0, 500.0, 0.0, 0.0])
"""Typical margin of an order in roubles; single ones vary by a factor of about 1.6."""
_HALF_LIVES = np.array([14.0, 12.0, 20.0, 40.0, 60.0, 48.0, 24.0, 12.0])
"""Hours after which a click leads to an order half as often."""
_LIFETIMES = np.array([48, 36, 36, 48, 48, 48, 48, 24])
"""Hours from arrival to the deadline."""
_PRIORITIES = np.array([30, 20, 20, 0, 10, 10, 40, 50])
"""Of the kinds, where messages compete."""
_IS_TRIGGERED = np.array([True, True, True, False, False, False, False, True])
MAX_LIFETIME = 48
_BLOCK = 16_384
"""Messages looked at together, so that memory does not grow with their weeks of hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """m messages in order of arrival; arrays of shape (m,)."""

    person: IntArray
    kind: IntArray
    product: IntArray
    arrive: IntArray
    """Hour since START; also the earliest time of sending."""
    lifetime: IntArray
    """Hours until the deadline, at most 48: nothing is sent or noticed from then on."""
    half_life: FloatArray
    margin: FloatArray
    """Roubles, in whole ones."""
    is_deal: NDArray[np.bool_]
    """Whether it offers a discount."""
    characters: IntArray
    has_image: NDArray[np.bool_]
    priority: IntArray
    """As the caller tells it, 0 to 100; all 0 where no bursts were asked for."""

    def __len__(self) -> int:
        return len(self.person)

    def take(self, chosen: "slice | IntArray") -> "Messages":
        """Return some of the messages."""
        return Messages(**{name: getattr(self, name)[chosen] for name in self.__slots__})


def make_messages(
    people: Population,
    count: int,
    begin: int,
    hours: int,
    seed: int,
    *,
    owed_share: float = 0.0,
    burst_share: float = 0.0,
) -> Messages:
    """Make messages that arrive within [begin, begin + hours); the same arguments give the same ones.

    A share of them is owed: delivery notices (service) and order confirmations (transactional). A share comes in the hour of a triggered
    message to its customer, so that messages compete: a burst of two or more.
    """
    rng = np.random.default_rng([seed, 2, begin])
    weight = people.activity + 0.5
    person = rng.choice(len(people), size=count, p=weight / weight.sum())
    kind = rng.choice(len(KINDS), size=count, p=(1 - owed_share) * _SHARES + owed_share * _OWED_SHARES)
    new = np.flatnonzero(people.stage == 0)
    person = np.where(kind == WELCOME, new[rng.integers(len(new), size=count)], person)
    appeal = np.exp(0.8 * people.interest[person])
    product = (appeal.cumsum(axis=1) / appeal.sum(axis=1, keepdims=True) < rng.random((count, 1))).sum(axis=1)
    arrive = _arrivals(rng, people, person, kind, begin, hours)
    if burst_share:
        host = _hosts(kind, burst_share, np.random.default_rng([seed, 7, begin]))
        kind = np.where(
            (kind == WELCOME) & (host != np.arange(count)) & (people.stage[person[host]] != 0), NEWSLETTER, kind
        )
        person, arrive, product = person[host], arrive[host], product[host]
    order = np.argsort(arrive, kind="stable")
    factor = np.exp(0.45 * rng.normal(size=count) - 0.1)
    is_deal = rng.random(count) < np.array([0.2, 0.15, 1.0, 0.6, 0.2, 0.5, 0.0, 0.0])[kind]
    return Messages(
        person=person,
        kind=kind,
        product=np.minimum(product, len(PRODUCTS) - 1),
        arrive=arrive,
        lifetime=_LIFETIMES[kind],
        half_life=_HALF_LIVES[kind],
        margin=np.round(_MARGINS[kind] * factor * np.where(is_deal, 0.8, 1.0)),
        is_deal=is_deal,
        characters=rng.choice([55, 68, 110, 160], size=count, p=(0.45, 0.3, 0.15, 0.1)),
        has_image=rng.random(count) < np.array([0.1, 0.15, 0.1, 0.3, 0.25, 0.1, 0.0, 0.0])[kind],
        priority=_PRIORITIES[kind] if burst_share else np.zeros(count, dtype=np.int64),
    ).take(order)


def _hosts(kind: IntArray, burst_share: float, rng: np.random.Generator) -> IntArray:
    """Return for each message the one whose customer, hour and product it shares: itself, or for a share a triggered one, each as often."""
    count = len(kind)
    host = np.arange(count)
    joins = rng.random(count) < burst_share
    hosts = rng.permutation(np.flatnonzero(_IS_TRIGGERED[kind] & ~joins))
    if len(hosts):
        host[joins] = hosts[np.arange(joins.sum()) % len(hosts)]
    return host


def _arrivals(
    rng: np.random.Generator, people: Population, person: IntArray, kind: IntArray, begin: int, hours: int
) -> IntArray:
    """Draw arrival hours: triggered messages by the customer's own rhythm, the others in the retailer's office hours."""
    count = len(person)
    day = rng.integers(0, max(1, hours // 24), size=count)
    office = begin + day * 24 + rng.integers(6, 15, size=count)
    start = begin + day * 24
    uniform = rng.random(count)
    own = np.concatenate([_own_hours(people, person[rows], start[rows], uniform[rows]) for rows in _blocks(count)])
    return np.where(_IS_TRIGGERED[kind], own, office)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, max(count, 1), _BLOCK))


def _own_hours(people: Population, person: IntArray, start: IntArray, uniform: FloatArray) -> IntArray:
    """Return an hour of the day that begins at `start`, drawn by the rhythm of each person, (m,)."""
    cells = start[:, None] + np.arange(24)
    local = np.take_along_axis(week_hours_of_all(cells), people.zone[person][None, :, None], axis=0)[0]
    rhythm = people.rhythm[person[:, None], local]
    share = rhythm.cumsum(axis=1) / rhythm.sum(axis=1, keepdims=True)
    return np.asarray(start + (share < uniform[:, None]).sum(axis=1).clip(max=23))
