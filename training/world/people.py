"""Customers of the simulated retailer: what the service is told of them, and what it is not.

Four latent engagements (app, mail, messenger, phone) are correlated; counts that the service is told are Poisson draws from them, so
that traits are known in part. Interest in four product topics has a common and an own part. Hour rhythms are mixtures of six types with
a shift of each person's own. A share reads mail at weekends alone; sure things order anyway and only then, lost causes never, and
the easily annoyed unsubscribe six times as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.context import FeatureValue
from training.world.clock import WEEK
from training.world.zones import HOME_SHARES, ZONES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

CHANNELS = ("in_app", "push", "email", "viber", "sms", "whatsapp")
IN_APP, PUSH, EMAIL, VIBER, SMS, WHATSAPP = range(6)
PRODUCTS = ("electronics", "home", "fashion", "children")
STAGES = ("new", "active", "loyal", "lapsing")
ORDINARY, SURE_THING, LOST_CAUSE = range(3)
_CLASS_SHARES = (0.77, 0.08, 0.15)
_WEEKEND_MAIL_SHARE = 0.12
_ANNOYED_SHARE = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """n customers as arrays of shape (n,) and more: C channels, P products."""

    seed: int
    zone: IntArray
    stage: IntArray
    sessions: FloatArray
    opens: FloatArray
    chats: FloatArray
    orders: FloatArray
    views: FloatArray
    discount_share: FloatArray
    tenure_days: FloatArray
    age_band: IntArray
    """0 to 4, -1 where it is not known."""
    favourite: IntArray
    """Product that the shop thinks the customer likes best; right in two cases of three."""
    product_views: FloatArray
    """(n, P): views of each product's pages in 30 days; what is told is that of the message's product."""
    consent: BoolArray
    """(n, C)."""
    reachable: BoolArray
    """(n, C), as the service is told."""
    kind: IntArray
    """Latent: ORDINARY, SURE_THING or LOST_CAUSE."""
    attention: FloatArray
    """Latent, (n, C): chance scale of noticing a message, see truth."""
    interest: FloatArray
    """Latent, (n, P): about standard normal."""
    deal_seeking: FloatArray
    """Latent, about standard normal."""
    organic: FloatArray
    """Latent: factor of the chance to order without a message."""
    annoyance: FloatArray
    """Latent: factor of the chance to unsubscribe."""
    rhythm: FloatArray
    """Latent, (n, 168): attention by hour of the local week, of mean 1."""
    is_weekend_mail: BoolArray
    """Latent."""
    deliverable: FloatArray
    """Latent, (n, C): factor of the chance that a send arrives; 0 for an app that was removed."""
    activity: FloatArray
    """Latent: visits a day."""

    def __len__(self) -> int:
        return len(self.zone)

    def take(self, chosen: IntArray) -> "Population":
        """Return some of the customers, one of them as often as it is named."""
        arrays = {name: getattr(self, name)[chosen] for name in self.__slots__ if name != "seed"}
        return Population(seed=self.seed, **arrays)

    def features(self, person: int) -> dict[str, FeatureValue]:
        """Return what a caller of the service tells of a customer; an unknown age is left out."""
        found: dict[str, FeatureValue] = {
            "app_sessions_30d": float(self.sessions[person]),
            "email_opens_90d": float(self.opens[person]),
            "messenger_chats_90d": float(self.chats[person]),
            "orders_365d": float(self.orders[person]),
            "views_30d": float(self.views[person]),
            "discount_share": float(self.discount_share[person]),
            "tenure_days": float(self.tenure_days[person]),
            "favourite_product": PRODUCTS[self.favourite[person]],
        }
        if self.age_band[person] >= 0:
            found["age_band"] = float(self.age_band[person])
        return found


def rhythm_types() -> FloatArray:
    """Return attention by hour of the week of six types, shape (6, 168), each of mean 1.

    Commuter, office, evening, night owl, parent at home, weekend; every type has a weekday and a weekend of its own.
    """

    def bumps(*peaks: tuple[float, float, float]) -> FloatArray:
        hour = np.arange(24) + 0.5
        day = np.full(24, 0.06)
        for centre, width, height in peaks:
            distance = np.abs((hour - centre + 12) % 24 - 12)
            day += height * np.exp(-0.5 * (distance / width) ** 2)
        return day

    weekday = [
        bumps((8, 1.0, 1.6), (18.5, 1.2, 1.8), (22, 1.2, 0.6)),
        bumps((10, 1.6, 1.3), (13, 1.0, 1.2), (16, 1.5, 1.0)),
        bumps((20.5, 1.8, 2.4), (13, 0.8, 0.3)),
        bumps((23.5, 1.8, 2.0), (14, 2.0, 0.6)),
        bumps((11, 1.8, 1.5), (14.5, 1.2, 1.2), (21.5, 1.0, 0.9)),
        bumps((21, 1.5, 0.6), (13, 1.0, 0.3)),
    ]
    weekend = [
        bumps((12, 3.0, 1.0), (20, 2.5, 0.9)),
        bumps((12, 2.5, 0.5), (20, 2.0, 0.6)),
        bumps((14, 3.0, 0.7), (21, 2.0, 1.6)),
        bumps((15, 2.5, 0.9), (0.5, 2.0, 2.0)),
        bumps((10, 1.5, 0.5), (21.5, 1.5, 0.8)),
        bumps((11, 2.5, 2.0), (17, 2.5, 1.8)),
    ]
    weeks = np.array([np.concatenate([np.tile(a, 5), np.tile(b, 2)]) for a, b in zip(weekday, weekend, strict=True)])
    return np.asarray(weeks / weeks.mean(axis=1, keepdims=True))


def make_population(count: int, seed: int, zone_shares: Sequence[float] = HOME_SHARES) -> Population:
    """Make customers; the same arguments give the same ones, other shares of zones the same but for where they live."""
    rng = np.random.default_rng([seed, 1])
    engagement = _correlated(rng, count, 4, 0.3)
    app, mail, chat, phone = engagement.T
    common = rng.normal(size=count)
    interest = 0.6 * common[:, None] + 0.8 * rng.normal(size=(count, len(PRODUCTS)))
    deal = rng.normal(size=count) - 0.25 * common
    kind = rng.choice(3, size=count, p=_CLASS_SHARES)
    tenure = rng.gamma(1.3, 400, size=count).round()
    order_rate = np.exp(0.2 + 0.5 * common) * np.array([1.0, 3.0, 0.25])[kind] * np.minimum(1, (tenure + 60) / 365)
    orders = rng.poisson(order_rate).astype(float)
    stage = np.select([tenure < 90, orders >= 3, orders >= 1], [0, 2, 1], 3)
    noisy = interest + rng.normal(size=interest.shape) * 0.7
    age = rng.choice(5, size=count, p=(0.2, 0.28, 0.24, 0.17, 0.11))
    consent, reachable = _permissions(rng, app, mail, chat)
    return Population(
        seed=seed,
        zone=rng.choice(len(ZONES), size=count, p=zone_shares),
        stage=stage,
        sessions=rng.poisson(6 * np.exp(0.8 * app - 0.3)).astype(float),
        opens=rng.poisson(5 * np.exp(0.8 * mail - 0.3)).astype(float),
        chats=rng.poisson(3 * np.exp(0.7 * chat - 0.2)).astype(float),
        orders=orders,
        views=rng.poisson(4 * np.exp(0.7 * common)).astype(float),
        discount_share=np.round(1 / (1 + np.exp(-deal - 0.6 * rng.normal(size=count))), 2),
        tenure_days=tenure,
        age_band=np.where(rng.random(count) < 0.3, -1, age),
        favourite=noisy.argmax(axis=1),
        consent=consent,
        reachable=reachable,
        kind=kind,
        attention=_attention(rng, app, mail, chat, phone, age),
        interest=interest,
        deal_seeking=deal,
        organic=np.exp(0.5 * common - 0.2) * np.array([1.0, 6.0, 0.1])[kind],
        annoyance=np.exp(0.4 * rng.normal(size=count)) * np.where(rng.random(count) < _ANNOYED_SHARE, 6.0, 1.0),
        rhythm=_rhythms(rng, count, age),
        is_weekend_mail=rng.random(count) < _WEEKEND_MAIL_SHARE,
        deliverable=_deliverable(rng, count),
        activity=np.exp(0.6 * app - 0.4) + 0.2,
        product_views=rng.poisson(2.5 * np.exp(0.8 * interest)).astype(float),
    )


def _correlated(rng: np.random.Generator, count: int, width: int, correlation: float) -> FloatArray:
    own = rng.normal(size=(count, width))
    return np.asarray(np.sqrt(1 - correlation) * own + np.sqrt(correlation) * rng.normal(size=(count, 1)))


def _permissions(
    rng: np.random.Generator, app: FloatArray, mail: FloatArray, chat: FloatArray
) -> tuple[BoolArray, BoolArray]:
    """Draw consent and reachability (n, C): push only where the app is, no customer without any channel."""
    count = len(app)
    uniform = rng.random((count, len(CHANNELS)))
    sigmoid = [0.6 + 1.2 * app, 0.9 + 0 * app, 1.3 + 0.5 * mail, 0.0 + 0.8 * chat, 1.8 + 0 * app, 0.1 + 0.8 * chat]
    consent = uniform < 1 / (1 + np.exp(-np.array(sigmoid).T))
    consent[:, PUSH] &= consent[:, IN_APP]
    consent[~consent.any(axis=1), SMS] = True
    return consent, rng.random((count, len(CHANNELS))) < np.array([1.0, 0.95, 0.98, 0.93, 0.98, 0.95])


def _attention(
    rng: np.random.Generator, app: FloatArray, mail: FloatArray, chat: FloatArray, phone: FloatArray, age: IntArray
) -> FloatArray:
    """Return attention scales (n, C): saturating in engagement, with an age effect that turns round between channels."""
    young = 1 - age / 2
    drive = np.array(
        [
            1.6 * app + 0.1,
            1.3 * app - 0.4 * (app > 1.2) * app,  # heavy users silence the app's pushes
            1.5 * mail - 0.3 * young,
            1.3 * chat - 0.4 * young,
            0.8 * phone - 0.3 * young * (phone > 0),
            1.3 * chat + 0.5 * young,
        ]
    ).T
    noise = np.exp(0.35 * rng.normal(size=drive.shape))
    return np.asarray(2 / (1 + np.exp(-drive)) * noise)


def _rhythms(rng: np.random.Generator, count: int, age: IntArray) -> FloatArray:
    """Mix the types and shift them, (n, 168), mean 1; the young are oftener night owls."""
    weights = rng.gamma(0.35, size=(count, 6)) * np.array([1.0, 1.2, 1.4, 0.5, 0.8, 0.8])
    weights[:, 3] *= np.where(age == 0, 3.0, 1.0)
    weights /= weights.sum(axis=1, keepdims=True)
    weeks = weights @ rhythm_types()
    shift = rng.normal(0, 1.2, size=count)
    whole = np.floor(shift).astype(int)
    part = (shift - whole)[:, None]
    hours = np.arange(WEEK)
    near = np.take_along_axis(weeks, (hours - whole[:, None]) % WEEK, axis=1)
    far = np.take_along_axis(weeks, (hours - whole[:, None] - 1) % WEEK, axis=1)
    shifted = (1 - part) * near + part * far
    return np.asarray(shifted / shifted.mean(axis=1, keepdims=True))


def _deliverable(rng: np.random.Generator, count: int) -> FloatArray:
    """Return the latent factor of delivery, (n, C): some removed the app or the messenger and nobody knows."""
    gone = np.array([0.03, 0.08, 0.0, 0.12, 0.01, 0.05])
    return np.where(rng.random((count, len(CHANNELS))) < gone, 0.0, 1.0)
