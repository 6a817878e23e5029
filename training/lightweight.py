"""A small world of known truth for coverage studies: hundreds of logs in the time of one of the simulated retailer's.

Contexts are of 24 kinds, actions are no send and 5 channels with 4 slots each; each world draws its own chances. A customer orders anyway, or clicks and then orders through the click;
a hidden interest makes those who click order more anyway than a model that does not see it believes, by a factor of 0.8 to 1.25 that each world draws. Models are counted, shrunk
and cross-fitted; they take chances to be products of factors of kind, channel and slot, which is wrong, and what is shrunk is wrong too.
Propensities are even in one kind of log ("good"); in the others a policy was greedy by beliefs of its own and kept a probability for each other channel that is drawn by context,
of 1 to 10 % ("fair") or 0.05 to 2 % ("poor").
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.increment import Judged

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
OverlapKind = Literal["good", "fair", "poor"]
OVERLAPS: tuple[OverlapKind, ...] = ("good", "fair", "poor")
KINDS, CHANNELS, SLOTS = 24, 5, 4
ACTIONS = 1 + CHANNELS * SLOTS
_CHANNEL = np.array([0, *np.repeat(np.arange(1, CHANNELS + 1), SLOTS)])
_PRICE = np.array([0.0, 0.0, 0.0, 0.0, 4.0, 5.0])[_CHANNEL]
_FOLDS = 3
_PRIOR = 50.0
_MARGIN = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A log, ready to be judged, and the policy's true value."""

    judged: Judged
    value: float
    """Of everything that customers order, less what messages cost, a decision."""
    margin: float
    """Of what messages cause."""
    cost: float
    modelled_value: FloatArray
    """By the model, of everything, under the policy."""
    modelled: FloatArray
    """By the model, of the logged action."""
    price: FloatArray
    """Of the logged action."""


def make_light(n: int, overlap: OverlapKind, rng: np.random.Generator) -> Logged:
    """Make a world, a log of n decisions in it and what models say of it."""
    share = rng.dirichlet(np.full(KINDS, 4.0))
    organic = np.exp(rng.normal(-3.7, 0.5, KINDS))
    noticed = np.exp(
        rng.normal(-3.2, 0.5, (KINDS, CHANNELS, 1))
        + rng.normal(0, 0.4, (KINDS, 1, 1))
        + rng.normal(0, 0.4, (CHANNELS, SLOTS))
        + rng.normal(0, 0.15, (KINDS, CHANNELS, SLOTS))
    )
    click = np.concatenate([np.zeros((KINDS, 1)), noticed.reshape(KINDS, -1)], axis=1).clip(max=0.5)
    gain_of = np.exp(rng.normal(-2.2, 0.3, (KINDS, CHANNELS))).clip(max=0.6)
    gain = np.concatenate([np.zeros((KINDS, 1)), np.repeat(gain_of, SLOTS, axis=1)], axis=1)
    margin_of = np.exp(rng.normal(0, 0.5, KINDS)) * _MARGIN
    lift = float(np.exp(rng.uniform(-0.22, 0.22)))
    net = click * gain * margin_of[:, None] - _PRICE
    logging = _logging(net, overlap, rng)
    target = _greedy(net * np.exp(rng.normal(0, 0.5, net.shape)), 0.03)

    kind = rng.choice(KINDS, size=n, p=share)
    above = rng.random((n, 1)) > np.cumsum(logging, axis=1)[kind][:, :-1]
    action = above.sum(axis=1)
    clicked = rng.random(n) < click[kind, action]
    # Interest raises what clickers order anyway and lowers it for the others, so that the mean of all stays.
    raised = np.minimum(organic * lift, 0.9)[:, None]
    others = (organic[:, None] - click * raised) / (1 - click)
    anyway = rng.random(n) < np.where(clicked, raised[kind, 0], others[kind, action])
    caused = clicked & (rng.random(n) < gain[kind, action])
    worth = margin_of[kind] * np.exp(rng.normal(-0.08, 0.4, n))
    value = worth * (anyway.astype(float) + caused)
    customer = rng.integers(max(1, n // 3), size=n)

    fold = (customer % _FOLDS).astype(np.intp)
    p, g, v0 = _models(kind, action, clicked, value, margin_of, fold)
    worth_of = (target * click * gain).sum(axis=1) * margin_of
    cost_of = (target * _PRICE).sum(axis=1)
    rows = np.arange(n)
    channel = _CHANNEL[action]
    of_channel = np.zeros((ACTIONS, CHANNELS + 1))
    of_channel[np.arange(ACTIONS), _CHANNEL] = 1
    target_channel, logging_channel = target @ of_channel, logging @ of_channel
    thin = (target_channel * (logging_channel < 0.002)).sum(axis=1)
    pg = p * g
    ratio = _slot_ratio(p, target, logging, of_channel)
    judged = Judged(
        channel_propensity=logging_channel[kind, channel],
        propensity=logging[kind, action],
        no_send_propensity=logging[kind, 0],
        is_send=action > 0,
        channel=channel.astype(str),
        target=target_channel[kind, channel],
        target_action=target[kind, action],
        slot_ratio=ratio[fold, kind, channel],
        thin=thin[kind],
        value=value,
        clicked=clicked.astype(float),
        value_after=np.where(clicked, value, 0.0),
        organic_after=np.where(clicked, v0[fold, kind], 0.0),
        unsubscribed=np.zeros(n),
        price=_PRICE[action],
        paid=_PRICE[action],
        margin=margin_of[kind],
        organic=v0[fold, kind],
        click=p[fold, kind, action],
        gain=g[fold, kind, action],
        orders=pg[fold, kind, action],
        unsubscribe=np.zeros(n),
        modelled_clicks=(target[kind] * pg[fold, kind]).sum(axis=1),
        modelled_orders=(target[kind] * pg[fold, kind]).sum(axis=1),
        modelled_unsubscribes=np.zeros(n),
        cost=cost_of[kind],
        sent=1 - target[kind, 0],
        step=np.ones(n, dtype=np.intp),
        message=rows,
        customer=customer,
        has_clicks=True,
    )
    modelled = v0[fold, kind] + margin_of[kind] * judged.click * judged.gain - _PRICE[action]
    return Logged(
        judged=judged,
        value=float(share @ (organic * margin_of + worth_of - cost_of)),
        margin=float(share @ worth_of),
        cost=float(share @ cost_of),
        modelled_value=v0[fold, kind] + margin_of[kind] * judged.modelled_clicks - cost_of[kind],
        modelled=modelled,
        price=_PRICE[action],
    )


def _slot_ratio(p: FloatArray, target: FloatArray, logging: FloatArray, of_channel: FloatArray) -> FloatArray:
    """Return P(click) in the policy's slots of each channel over that in the log's, shape (folds, kinds, channels)."""
    chosen = (p * target) @ of_channel / np.maximum(target @ of_channel, 1e-12)
    usual = (p * logging) @ of_channel / (logging @ of_channel)
    found: FloatArray = np.divide(chosen, usual, out=np.ones_like(usual), where=(usual > 0) & (chosen > 0))
    return found


def _greedy(worth: FloatArray, rest: float) -> FloatArray:
    """Return the distribution of the best action, with the rest spread evenly over channels and then slots."""
    size = np.bincount(_CHANNEL)
    even = 1 / (len(size) * size[_CHANNEL])
    found = np.tile(rest * even, (len(worth), 1))
    found[np.arange(len(worth)), worth.argmax(axis=1)] += 1 - rest
    return found


def _logging(net: FloatArray, overlap: OverlapKind, rng: np.random.Generator) -> FloatArray:
    """Return the logging policy, shape (kinds, actions)."""
    size = np.bincount(_CHANNEL)
    if overlap == "good":
        return np.tile(1 / (len(size) * size[_CHANNEL]), (KINDS, 1))
    low, high = (0.01, 0.1) if overlap == "fair" else (0.0005, 0.02)
    kept = np.exp(rng.uniform(np.log(low), np.log(high), (KINDS, CHANNELS + 1)))
    found: FloatArray = (kept / size)[:, _CHANNEL]
    best = (net * np.exp(rng.normal(0, 0.5, net.shape))).argmax(axis=1)
    found[np.arange(KINDS), best] += 1 - kept.sum(axis=1)
    return found


def _models(
    kind: IntArray,
    action: IntArray,
    clicked: NDArray[np.bool_],
    value: FloatArray,
    margin_of: FloatArray,
    fold: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return P(click), orders caused by a click and organic value by fold, kind and action, each counted on the other folds."""
    p, g = np.zeros((_FOLDS, KINDS, ACTIONS)), np.zeros((_FOLDS, KINDS, ACTIONS))
    v0 = np.zeros((_FOLDS, KINDS))
    channel = _CHANNEL[action]
    for number in range(_FOLDS):
        used = fold != number
        still = used & ~clicked
        orders = np.bincount(kind[still], (value > 0)[still], KINDS)
        rate = float(orders.sum() / still.sum())
        anyway = (orders + 200 * rate) / (np.bincount(kind[still], minlength=KINDS) + 200)
        v0[number] = anyway * margin_of
        caused = np.where(clicked, value / margin_of[kind] - anyway[kind], 0.0)
        hits = used & clicked
        mean_gain = max(0.01, float(caused[hits].sum() / hits.sum()))
        gain_of_kind = _ratio(kind, caused, hits, KINDS, mean_gain)
        for c in range(1, CHANNELS + 1):
            mine = used & (channel == c)
            mean = float(clicked[mine].sum() + 1) / (mine.sum() + 20)
            slots = np.flatnonzero(c == _CHANNEL)
            of_kind = _ratio(kind, clicked, mine, KINDS, mean)
            of_slot = _ratio(action, clicked, mine, ACTIONS, mean)[slots] / mean
            p[number][:, slots] = of_kind[:, None] * of_slot
            of_channel = _ratio(channel, caused, hits, CHANNELS + 1, mean_gain)[c] / mean_gain
            g[number][:, slots] = np.maximum(gain_of_kind * of_channel, 0.01)[:, None]
    return p.clip(max=0.9), g, v0


def _ratio(of: IntArray, events: NDArray[Any], used: NDArray[np.bool_], size: int, mean: float) -> FloatArray:
    """Return the rate of events by group, drawn towards the mean by 50 trials."""
    found: FloatArray = (np.bincount(of[used], events[used], size) + _PRIOR * mean) / (
        np.bincount(of[used], minlength=size) + _PRIOR
    )
    return found
