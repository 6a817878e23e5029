"""What a policy's decisions add to no send, estimated from the log of another policy: estimates of few assumptions and of many, and one figure of all.

Orders that happen anyway are nearly all of the variance of an order's value, and nearly none of them is caused by a message. So the increment is not taken
as a difference of two values. With w = P(logged channel | x) under the policy judged / under the logging one, C a click, V the value of the customer's orders
in the window, V+ of those after the click, v0(x) and v0+(x) the same expected without a send, m the order margin, p(x, a) and g(x, a) the modelled chance of a
click and of an order caused by one:

    randomised   T0 = mean[ sum_a pi m p g + w (V - v0 - m p g) - 1{no send} / mu(no send) (V - v0) ]
    clicks       T1 = mean[ sum_a pi m p g + w (C (V+ - v0+) - m p g) ]
    pooled       T2 = mean[ sum_a pi m p g + w m g (C - p) ],      g scaled by  sum C (V+ - v0+) / m  over  sum C g

All are doubly robust for what they claim: models are cross-fitted, and an error of p is corrected by w. T0 assumes nothing but the propensities. T1 assumes
that a send changes orders only through clicks on it, and how often who clicks would have ordered anyway, after that hour. v0 is too little for them: who clicks is nearer to an order than others
of whom the log knows the same. By how much cannot be seen, unlike how much nearer they are by what the log knows, k = mean v0 of clickers / mean v0 of all who were sent to. What is
not known selects between not at all, factor 1, and as strongly as what is known, factor k (Altonji, Elder & Taber 2005; Oster 2019): v0+ is multiplied by the mean of both, q = sqrt(k), and both are
within a standard deviation of it. T2 assumes further that g has the
right shape, so that orders of all clicks of the log may be pooled, not only those that the policy would have caused. Each is taken with weights of slots, and of
channels: those are five to ten times smaller, and assume that the model is right about the slots of a channel against each other (OffCEM; the correction is multiplied by p in the
policy's slots over p in the log's). Each assumption has a standard deviation of what it may be wrong by:

    clickers max(0.25, |q - 1/q| / 2) x mean[ w p q v0+ ]        pooling 0.25 x T2        slots 0.15 x T2

With S the covariance of the estimates that the models expect, and B that of the assumptions, which estimates share, the figure is their generalised least-squares mean

    T = sum u_j T_j,   u = (S + B)^-1 1 / (1' (S + B)^-1 1) without negative u,   variance u' (S' + B) u

S' is the greater of S and what the influence functions show, summed by customer. u does not depend on the orders that came: mixed by the variances seen, estimates to which
few orders happened to come would weigh most. The interval is for the increment itself, not for a surrogate: it holds the noise and what the assumptions may be wrong by. As a
log grows S falls and B does not, so that the figure goes over to T1 and at last to T0, which assumes nothing.

Later steps of a cascade are weighted by the product of the weights of the steps before (per-decision importance sampling), and their gains added: a click belongs to the step that was
clicked. T0 cannot tell steps apart and is left out where the log has more than one.

Sources: Dudik, Langford & Li (2011), "Doubly Robust Policy Evaluation and Learning"; Chernozhukov et al. (2018), "Double/Debiased Machine Learning", for cross-fitting;
Altonji, Elder & Taber (2005), "Selection on Observed and Unobserved Variables", and Oster (2019), "Unobservable Selection and Coefficient Stability", for q;
Athey, Chetty, Imbens & Kang (2019), "The Surrogate Index", for T2; Saito, Ren & Joachims (2023), "Off-Policy Evaluation for Large Action Spaces via Conjunct Effect Modeling"; Turner,
Spiegelhalter, Smith & Thompson (2009), "Bias Modelling in Evidence Synthesis", for B; Precup, Sutton & Singh (2000), "Eligibility Traces for Off-Policy Policy Evaluation".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import LogUnusable
from training.off_policy import Estimate, effective_sample_size

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
DOUBT_OF_CLICKERS = 0.25
DOUBT_OF_POOLING = 0.25
DOUBT_OF_SLOTS = 0.15
_LEAST_CLICKS, _LEAST_ORDERS = 30, 10
_MOST_NEARNESS = 2.0
_LEAST_CONTROLS = 100.0
"""Effective decisions without a send from which the randomised estimate counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Decisions of a log with what one policy would have done, models said, and came of them. Arrays have shape (n,), money is in units."""

    channel_propensity: FloatArray
    """P(logged channel | x) under the logging policy."""
    propensity: FloatArray
    """P(logged action | x) under the logging policy."""
    no_send_propensity: FloatArray
    """P(no send | x) under the logging policy, where no send was logged."""
    is_send: NDArray[np.bool_]
    channel: NDArray[np.str_]
    target: FloatArray
    """P(logged channel | x) under the policy judged."""
    target_action: FloatArray
    """P(logged action | x) under the policy judged."""
    slot_ratio: FloatArray
    """P(click) by the model in the slots of the logged channel that the policy would choose, over that in those that the log chose; 1 for no send."""
    thin: FloatArray
    """Share of the policy's probability on channels that the log hardly tried."""
    value: FloatArray
    """V."""
    clicked: FloatArray
    value_after: FloatArray
    """Of what was ordered after the click, 0 where there was none."""
    organic_after: FloatArray
    """What of v0 is expected after the hour of the click, 0 where there was none."""
    unsubscribed: FloatArray
    price: FloatArray
    """Of the logged action."""
    paid: FloatArray
    """What it cost in the end: nothing where it was not sent."""
    margin: FloatArray
    organic: FloatArray
    """v0(x), in money."""
    click: FloatArray
    """p(x, logged action), 0 for no send."""
    gain: FloatArray
    """g(x, logged action)."""
    orders: FloatArray
    """Orders that the logged action is modelled to cause; p g where there is a model of clicks."""
    unsubscribe: FloatArray
    """P(unsubscribe | x, logged action) by the model."""
    modelled_clicks: FloatArray
    """sum_a pi p g."""
    modelled_orders: FloatArray
    modelled_unsubscribes: FloatArray
    """sum_a pi P(unsubscribe)."""
    cost: FloatArray
    """sum_a pi price."""
    sent: FloatArray
    """sum_a pi over sends."""
    step: IntArray
    message: IntArray
    """Number of the message; steps of one cascade have the same."""
    customer: IntArray
    """Number of the customer."""
    has_clicks: bool
    has_steps: bool = False
    """Whether the log has later steps, here or left out, so that orders in the window may be theirs."""

    def __len__(self) -> int:
        return len(self.value)

    @property
    def messages(self) -> int:
        """How many cascades there are."""
        return int((self.step == 1).sum())

    def take(self, mask: NDArray[np.bool_]) -> "Judged":
        """Return the decisions for which the mask is true."""
        return replace(
            self,
            **{name: getattr(self, name)[mask] for name in self.__slots__ if name not in ("has_clicks", "has_steps")},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One estimate with its standard error by sampling and the standard deviation of what its assumptions may be wrong by; a decision's mean, in units."""

    name: str
    value: float
    standard_error: float
    doubt: float
    share: float
    """Of the figure."""

    @property
    def deviation(self) -> float:
        return float(np.hypot(self.standard_error, self.doubt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """What a policy adds to no send, a message on average, money in units."""

    margin: Estimate
    """Margin of the orders that it causes."""
    cost: Estimate
    unsubscribes: Estimate
    net: Estimate
    """Margin less cost less harm of unsubscribing."""
    parts: tuple[Part, ...]
    """Estimates of the margin, from none to many assumptions."""
    clicks: float
    """Clicks of the log that the order stage is learned from."""
    scale: float
    """By which the modelled gain of a click was multiplied."""
    nearness: float
    """How many times as often as the models say those who click are taken to order anyway."""

    @property
    def disagreement(self) -> float:
        """How many standard deviations the randomised estimate, or the one through clicks, is away from that with most assumptions; 0 where there is but one."""
        if len(self.parts) < 2:
            return 0.0
        first, last = self.parts[0], self.parts[-1]
        return (first.value - last.value) / float(np.hypot(first.deviation, last.deviation))


def events_of(judged: Judged) -> NDArray[np.bool_]:
    """Tell which decisions have what the increment is learned from: a click, or an order where clicks cannot tell it; shape (n,)."""
    found: NDArray[np.bool_] = (judged.value if scale_of_gain(judged) is None else judged.clicked) > 0
    return found


def weights_before(judged: Judged) -> FloatArray:
    """Return the product of the weights of a cascade's earlier steps, shape (n,); 1 for first steps."""
    before = np.ones(len(judged))
    if (judged.step == 1).all():
        return before
    own = judged.target / judged.channel_propensity
    order = np.lexsort((judged.step, judged.message))
    running, last = 1.0, -1
    for i in order:
        running = 1.0 if judged.message[i] != last else running
        last = int(judged.message[i])
        before[i] = running
        running *= own[i]
    return before


def standard_error(influence: FloatArray, customer: IntArray) -> float:
    """Return the standard error of a mean from its influence function, summed by customer."""
    return float(np.sqrt(_covariance(influence[None], customer)[0, 0]))


def _covariance(influences: FloatArray, customer: IntArray) -> FloatArray:
    """Return the covariance of means with these influence functions, shape (j, n), by customer: (j, j)."""
    n = influences.shape[1]
    numbers = np.unique(customer, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    sums = np.array([np.bincount(numbers, one, minlength=count) for one in influences])
    found: FloatArray = sums @ sums.T / n**2 * (count / max(count - 1, 1))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """An estimate as one term for each decision; its value is the sum over the number of messages."""

    kind: Literal["randomised", "clicks", "pooled"]
    level: Literal["slot", "channel"]
    terms: FloatArray
    weight: FloatArray
    doubts: Mapping[str, float]
    """Standard deviation, in money, of what each assumption may be wrong by."""
    of_scale: FloatArray
    """What each decision adds to the estimate through the scale."""

    @property
    def name(self) -> str:
        return f"{self.kind}, by {self.level}"


def estimate_increment(judged: Judged, harm: float) -> Increment:
    """Estimate what a policy adds to no send; `harm` is what an unsubscribe costs.

    Raises
    ------
    LogUnusable: neither decisions without a send nor clicks can tell it.
    """
    nearness = nearness_of_clickers(judged)
    judged = replace(judged, organic_after=nearness * judged.organic_after)
    n, messages = len(judged), judged.messages
    before = weights_before(judged)
    weight = before * judged.target / judged.channel_propensity
    ratio = n / messages

    def estimate(terms: FloatArray, influence: FloatArray | None = None, doubt: float = 0.0) -> Estimate:
        value = float(terms.sum() / messages)
        centred = ratio * terms - value if influence is None else influence
        return Estimate(
            value=value,
            standard_error=float(np.hypot(standard_error(centred, judged.customer), doubt)),
            effective_sample_size=effective_sample_size(weight),
            influence=centred,
        )

    candidates, scale = _candidates(judged, before, max(DOUBT_OF_CLICKERS, abs(nearness - 1 / nearness) / 2))
    values = np.array([c.terms.sum() / messages for c in candidates])
    influences = np.array(
        [ratio * c.terms - value + ratio * c.of_scale for c, value in zip(candidates, values, strict=True)]
    )
    seen = _covariance(influences, judged.customer)
    expected = _expected_covariance(judged, candidates, scale)
    doubts = _covariance_of_doubts([c.doubts for c in candidates])
    share = least_variance(expected + doubts)
    sampling = max(float(share @ seen @ share), float(share @ expected @ share))
    doubt = float(np.sqrt(share @ doubts @ share))
    influence = share @ influences
    margin = Estimate(
        value=float(share @ values),
        standard_error=float(np.hypot(np.sqrt(sampling), doubt)),
        effective_sample_size=effective_sample_size(weight),
        influence=influence,
    )
    cost = estimate(before * judged.cost + weight * (judged.paid - judged.price))
    unsubscribes = estimate(before * judged.modelled_unsubscribes + weight * (judged.unsubscribed - judged.unsubscribe))
    net_influence = influence - cost.influence - harm * unsubscribes.influence
    net = Estimate(
        value=margin.value - cost.value - harm * unsubscribes.value,
        standard_error=float(np.hypot(max(standard_error(net_influence, judged.customer), np.sqrt(sampling)), doubt)),
        effective_sample_size=margin.effective_sample_size,
        influence=net_influence,
    )
    parts = tuple(
        Part(
            name=c.name,
            value=float(value),
            standard_error=float(np.sqrt(max(seen[j, j], expected[j, j]))),
            doubt=float(np.sqrt(doubts[j, j])),
            share=float(share[j]),
        )
        for j, (c, value) in enumerate(zip(candidates, values, strict=True))
    )
    return Increment(
        margin=margin,
        cost=cost,
        unsubscribes=unsubscribes,
        net=net,
        parts=parts,
        clicks=float(judged.clicked.sum()),
        scale=scale,
        nearness=nearness,
    )


def nearness_of_clickers(judged: Judged) -> float:
    """Return how many times as often as the models say those who clicked are taken to order anyway: the root of how many times as often as all who were sent to the models say they do.

    It is between 1/2 and 2.
    """
    clicked = judged.organic[judged.is_send & (judged.clicked > 0)]
    usual = float(judged.organic[judged.is_send].mean()) if judged.is_send.any() else 0.0
    if len(clicked) < _LEAST_CLICKS or usual <= 0:
        return 1.0
    return float(np.clip(np.sqrt(clicked.mean() / usual), 1 / _MOST_NEARNESS, _MOST_NEARNESS))


def _candidates(judged: Judged, before: FloatArray, doubt_of_clickers: float) -> tuple[list[_Term], float]:
    """Return the estimates that the log allows, from few assumptions to many, and the scale of the modelled gain."""
    scale = scale_of_gain(judged)
    of_action = before * judged.target_action / judged.propensity
    of_channel = before * judged.target / judged.channel_propensity * judged.slot_ratio
    by_slot = _terms(judged, before, of_action, "slot", scale)
    by_channel = _terms(judged, before, of_channel, "channel", scale)
    found = by_slot if np.allclose(of_action, of_channel) else [*by_slot, *by_channel]
    if not found:
        raise LogUnusable(
            "the log has neither enough decisions without a send nor clicks with orders; what a send adds cannot be told from it: "
            "log with a holdout or with more exploration, or report clicks"
        )
    usual = abs(float(by_channel[-1].terms.sum() / judged.messages))
    sizes = {
        "clickers": doubt_of_clickers
        * _left_after_click(judged)
        * float((of_channel * judged.click * judged.organic).sum() / judged.messages),
        "pooling": DOUBT_OF_POOLING * usual,
        "slots": DOUBT_OF_SLOTS * usual,
    }
    sized = [replace(term, doubts={name: sizes[name] for name in term.doubts}) for term in found]
    return sized, 1.0 if scale is None else scale


def _terms(
    judged: Judged, before: FloatArray, weight: FloatArray, level: Literal["slot", "channel"], scale: float | None
) -> list[_Term]:
    """Return the estimates with these weights; sizes of doubts are still to come."""
    found: list[_Term] = []
    by = 1.0 if scale is None else scale
    doubts = {"slots": 0.0} if level == "channel" else {}
    nothing = np.zeros(len(judged))
    gained = judged.value - judged.organic
    gained_after = judged.value_after - judged.organic_after
    clicks = judged.clicked * judged.is_send
    expected = by * judged.margin * (judged.orders if scale is None else judged.click * judged.gain)
    modelled = by * before * judged.margin * (judged.modelled_orders if scale is None else judged.modelled_clicks)

    def add(
        kind: Literal["randomised", "clicks", "pooled"], terms: FloatArray, of_scale: FloatArray, *more: str
    ) -> None:
        own = doubts | dict.fromkeys(more, 0.0)
        found.append(_Term(kind=kind, level=level, terms=terms, weight=weight, doubts=own, of_scale=of_scale))

    control = control_weights(judged)
    if not judged.has_steps and control.any() and effective_sample_size(control) >= _LEAST_CONTROLS:
        add("randomised", modelled + weight * (gained - expected) - control * gained, nothing)
    if scale is not None:
        add("clicks", modelled + weight * (gained_after - expected), nothing, "clickers")
        pooled = modelled + weight * by * judged.margin * judged.gain * (clicks - judged.click)
        slope = float(pooled.sum()) / by / float((clicks * judged.gain).sum())
        residual = slope * (_per_margin(judged) - by * clicks * judged.gain)
        add("pooled", pooled, residual, "clickers", "pooling")
    return found


def _left_after_click(judged: Judged) -> float:
    """Return the share of what is ordered anyway that comes after the click, where there was one."""
    before_click = float((judged.clicked * judged.organic).sum())
    return float(judged.organic_after.sum()) / before_click if before_click > 0 else 1.0


def control_weights(judged: Judged) -> FloatArray:
    """Return 1 / P(no send | x) of decisions not to send, 0 of sends, shape (n,)."""
    found: FloatArray = np.where(judged.is_send, 0.0, 1 / np.where(judged.is_send, 1.0, judged.no_send_propensity))
    return found


def _expected_covariance(judged: Judged, candidates: Sequence[_Term], scale: float) -> FloatArray:
    """Return the covariance of the estimates that models expect, shape (j, j).

    Where few orders came of the decisions with much weight, estimates and the variance that was seen are both too low. To mix estimates by what was seen would prefer those
    that happen to be low; what is expected does not depend on the orders of this log. With a = scale m g the value that a click causes and k = sum V^2 / sum V,
    a decision's noise is (w - c) V, w C V or w a C, and V^2 is expected to be k times V.
    """
    control = control_weights(judged)
    caused = scale * judged.margin * judged.gain
    by_click = _left_after_click(judged) * judged.organic + caused
    everything = judged.organic + scale * judged.margin * np.where(
        judged.gain > 0, judged.click * judged.gain, judged.orders
    )
    spread = float((judged.value**2).sum() / max(judged.value.sum(), 1e-9))
    clicks = judged.clicked * judged.is_send
    of_scale = float((clicks * judged.gain).sum()) * scale
    per_margin = judged.value / _usual_margin(judged)
    spread_of_scale = float((per_margin**2).sum() / max(per_margin.sum(), 1e-9))
    noise_of_scale = (
        float((clicks * by_click / _usual_margin(judged)).sum()) * spread_of_scale / of_scale**2 if of_scale else 0.0
    )
    size = len(candidates)
    found = np.zeros((size, size))
    for j, one in enumerate(candidates):
        for k, other in enumerate(candidates):
            first, second = sorted((one, other), key=lambda term: _ORDER[term.kind])
            w = first.weight - control if first.kind == "randomised" else first.weight
            v = second.weight - control if second.kind == "randomised" else second.weight
            match first.kind, second.kind:
                case "randomised", "randomised":
                    moment = everything * spread
                case (_, "clicks"):
                    moment = judged.click * by_click * spread
                case "pooled", _:
                    moment = judged.click * caused**2
                case _:
                    moment = judged.click * caused * by_click
            total = float((w * v * moment).sum())
            if second.kind == "pooled" and of_scale:
                if first.kind == "pooled":
                    total += noise_of_scale * float(first.terms.sum()) * float(second.terms.sum())
                else:
                    shared = first.weight * judged.click * by_click * spread / _usual_margin(judged)
                    total += float(second.terms.sum()) / of_scale * float(shared.sum())
            found[j, k] = total
    modelled = scale * judged.margin * judged.modelled_clicks
    return found / judged.messages**2 + float(modelled.var()) / judged.messages


_ORDER = {"randomised": 0, "clicks": 1, "pooled": 2}


def scale_of_gain(judged: Judged) -> float | None:
    """Return by what the modelled gain of a click is to be multiplied to be that of all clicks together; None where they are too few."""
    clicks = judged.clicked * judged.is_send
    orders = float((judged.value_after > 0).sum())
    expected = float((clicks * judged.gain).sum())
    if not judged.has_clicks or clicks.sum() < _LEAST_CLICKS or orders < _LEAST_ORDERS or expected <= 0:
        return None
    found = float(_per_margin(judged).sum()) / expected
    return found if found > 0 else None


def _per_margin(judged: Judged) -> FloatArray:
    """Return what was gained after clicks as a number of orders, so that dear orders do not outweigh the others."""
    found: FloatArray = (judged.value_after - judged.organic_after) / _usual_margin(judged)
    return found


def _usual_margin(judged: Judged) -> FloatArray:
    """Return margins that can be divided by: none is less than a tenth of the median one."""
    return np.maximum(judged.margin, 0.1 * float(np.median(judged.margin)))


def _covariance_of_doubts(doubts: Sequence[Mapping[str, float]]) -> FloatArray:
    """Return the covariance of what estimates may be wrong by: what they assume alike, they are wrong about alike."""
    found: FloatArray = np.array([[sum(x[name] * y.get(name, 0.0) for name in x) for y in doubts] for x in doubts])
    return found


def least_variance(covariance: FloatArray) -> FloatArray:
    """Return the weights, none negative and summing to 1, whose mean has the least variance; shape (j,) for a few j."""
    size = len(covariance)
    best, least = np.zeros(size), np.inf
    for count in range(1, size + 1):
        for kept in combinations(range(size), count):
            part = covariance[np.ix_(kept, kept)]
            raw = np.linalg.lstsq(part, np.ones(count), rcond=None)[0]
            if raw.sum() <= 0 or (raw < 0).any():
                continue
            share = raw / raw.sum()
            variance = float(share @ part @ share)
            if variance < least:
                best, least = np.zeros(size), variance
                best[list(kept)] = share
    return best
