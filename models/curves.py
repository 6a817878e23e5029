"""What comes of a send, hour by hour: delivered, noticed, clicked, ordered.

For a context x and a send through channel c at time s, in cells g of one hour up to the message's expiry,

    hazard of noticing   lambda(g) = exp(notice(x, c)) x keep_c(g - s) x rhythm(g)^power_c x hour_c(g)
    noticed in cell g    N(g) = delivered_c (exp(-sum_{j<g} lambda(j)) - exp(-sum_{j<=g} lambda(j)))
    clicked              q_z(g) = logistic(k (click(x, c) + d_c log relevance(g)) + sigma t_z),     k = sqrt(1 + 0.346 sigma^2)
    unsubscribed         r = logistic(unsubscribe(x, c)) of those who noticed and did not click
    gain of a click      o(g) = scale x max(0, logistic(order(x, c) + e_c log relevance(g)) - logistic(organic(x)))

relevance(g) halves with each half-life of the message; rhythm is the customer's (models.rhythm). Interest in this one message is a
standard normal t of which three Gauss-Hermite nodes t_z with weights w_z are taken; k keeps the chance of a click, averaged over t, what the stage
says (Zeger, Liang & Albert 1988). Who noticed a message and did nothing has less of it: the weights of later steps are
multiplied by 1 - q_z. notice, click, order, organic and unsubscribe are stages (models.stage). `scale` fits the sum of effects to the randomised
difference between send and no send.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models.booster import Booster
from models.context import Context
from models.correction import GROUP_EDGES, Forecast
from models.features import Action, Column, Encoder
from models.rhythm import Rhythms, RhythmTypes, count_week, hours_of_week
from models.stage import Design, Scaling, linear_scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
AGES = 72
HOUR_BINS = 16
STAGES = ("notice", "click", "order", "organic", "unsubscribe")
_AGE_EDGES = np.array([1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 36, 50])
_AGE_BINS = np.searchsorted(_AGE_EDGES, np.arange(AGES), side="right")
_MOST_CELLS = 120
_NODES = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
_NODE_WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])
_MOST_CLICK = 0.98
_IGNORE = ConfigDict(extra="ignore")
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def age_bins(age: IntArray) -> IntArray:
    """Return the bin of ages in hours, 0 to 71."""
    found: IntArray = _AGE_BINS[age]
    return found


def hour_bins(hour: IntArray) -> IntArray:
    """Return the bin of hours of the week: eight of three hours for working days, eight for the weekend."""
    found: IntArray = hour % 24 // 3 + 8 * (hour >= 5 * 24)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLag:
    """How long a channel's messages keep being noticed, and how the channel follows its readers' rhythm."""

    __pydantic_config__ = _IGNORE

    log_keep: tuple[_Finite, ...]
    """Log rate by bin of age."""
    power: _Finite
    log_hours: tuple[_Finite, ...]
    """Log factor by bin of the week."""

    def by_age(self) -> FloatArray:
        """Return the rate by age in hours, shape (72,)."""
        found: FloatArray = np.exp(np.array(self.log_keep))[_AGE_BINS]
        return found

    def by_hour(self, log_rhythm: FloatArray, hour: IntArray) -> FloatArray:
        """Return the factor of hours of the week with this log rhythm; all shapes alike."""
        found: FloatArray = np.exp(self.power * log_rhythm + np.array(self.log_hours)[hour_bins(hour)])
        return found

    def rate(self, age: IntArray, log_rhythm: FloatArray, hour: IntArray) -> FloatArray:
        """Return the hazard an hour at an attention of 1; all shapes alike."""
        return self.by_age()[age] * self.by_hour(log_rhythm, hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWeights:
    """The linear part of a stage: a row of weights for all channels, then one for each."""

    __pydantic_config__ = _IGNORE

    weights: tuple[tuple[_Finite, ...], ...]
    relevance: tuple[_Finite, ...] = ()
    """Weights of log relevance: of all channels, then each channel's own on top; empty where the stage has none."""
    has_trees: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelDescription:
    """Everything of the funnel but its trees."""

    __pydantic_config__ = _IGNORE

    columns: tuple[Column, ...]
    scaling: Scaling
    rhythm: RhythmTypes
    lags: dict[str, ChannelLag]
    delivered: dict[str, _Rate]
    stages: dict[str, StageWeights]
    interest_deviation: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    """sigma."""
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    notes: dict[str, str] = field(default_factory=dict)
    """For people: which stages had too little data, and what stands in for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A send of this message that was made before: its channel and time, and when it was noticed; hours since 1970."""

    channel: str
    send_hours: float
    noticed_hours: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """m sends, each as if alone, in order of time, over Z nodes of interest and G cells.

    `made` is of the k sends made before, from now on. Weights of the nodes, given what these sends have met with, are multiplied into `worth`.
    """

    channel: tuple[str, ...]
    start: IntArray
    """Cell of each send, shape (m,)."""
    worth: FloatArray
    """Weighted P(click) x gain x margin less P(unsubscribe) x harm, in micros, by cell, shape (m, Z, G)."""
    before: FloatArray
    """P(no reaction before the cell | node), shape (m, Z, G)."""
    weights: FloatArray
    """Weights of the nodes, shape (Z,)."""
    pending_worth: FloatArray
    """As `worth`, of all that was made, together: what is still to come of it; shape (Z, G)."""
    pending_before: FloatArray
    """P(no reaction to what was made before the cell | node), shape (Z, G)."""
    uplift: FloatArray
    """P(order | send, if nothing else is sent) - P(order | no send), shape (m,)."""
    p_unsubscribe: FloatArray
    """Shape (m,)."""
    p_notice: FloatArray
    """P(noticed before expiry), shape (m,)."""
    p_click: FloatArray
    """P(clicked before expiry), shape (m,)."""
    p_organic: float
    row: IntArray
    """Place of each send in the forecasts, shape (m,)."""
    forecasts: "Forecasts | None" = None

    def keep(self, mask: NDArray[np.bool_]) -> "Curves":
        """Return the curves of the sends for which the mask, shape (m,), is true."""
        return replace(
            self,
            channel=tuple(name for name, kept in zip(self.channel, mask, strict=True) if kept),
            **{name: getattr(self, name)[mask] for name in _BY_SEND},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What the bundle alone, without corrections, says of each send: the trials by which it is corrected later."""

    send_hours: FloatArray
    of: IntArray
    """Channel of each send, shape (m,)."""
    hazard: FloatArray
    """Hazard of being noticed by cell, shape (m, G)."""
    origin: int
    """Hour since 1970 of the first cell."""
    click: FloatArray
    """P(click | noticed in the cell, what was made before), by channel, shape (c, G)."""
    order: FloatArray
    """P(order | click in the cell), by channel, shape (c, G)."""
    unsubscribe: FloatArray
    delivered: FloatArray

    def of_send(self, row: int) -> Forecast:
        """Return the forecast of one send."""
        hour = math.floor(self.send_hours[row])
        cells = self.hazard.shape[1]
        channel = self.of[row]
        edges = [min(max(hour + edge - self.origin, 0), cells) for edge in (0, *GROUP_EDGES)]
        notice: list[float] = []
        click: list[float] = []
        order: list[float] = []
        for begin, end in itertools.pairwise(edges):
            if end <= begin:
                break
            weight = self.hazard[row, begin:end]
            total = float(weight.sum())
            share = weight / total if total > 0 else np.full(end - begin, 1 / (end - begin))
            notice.append(round(total, 6))
            click.append(round(float(share @ self.click[channel, begin:end]), 6))
            order.append(round(float(share @ self.order[channel, begin:end]), 6))
        return Forecast(
            send_hour=hour,
            deliver=round(float(self.delivered[channel]), 6),
            notice=tuple(notice),
            click=tuple(click),
            order=tuple(order),
            unsubscribe=round(float(self.unsubscribe[channel]), 6),
        )


_BY_SEND = ("row", "start", "worth", "before", "uplift", "p_unsubscribe", "p_notice", "p_click")


class FunnelModel:
    """The funnel, ready to draw curves."""

    def __init__(self, description: FunnelDescription, boosters: Mapping[str, Booster]) -> None:
        self.description = description
        self._boosters = dict(boosters)
        self._encoder = Encoder(description.columns)
        self._design = Design(description.columns, description.scaling)
        self._rhythms = Rhythms(description.rhythm)
        self._weights = {name: np.array(stage.weights) for name, stage in description.stages.items()}
        self._relevance = {name: np.array(stage.relevance) for name, stage in description.stages.items()}
        self._keep = {channel: lag.by_age() for channel, lag in description.lags.items()}
        rates = list(self._keep.values())
        self._usual_keep = np.exp(np.mean(np.log(rates), axis=0)) if rates else np.full(AGES, 0.01)

    @property
    def tree_count(self) -> int:
        """Trees of all stages."""
        return sum(booster.tree_count for booster in self._boosters.values())

    def scores(self, stage: str, matrix: FloatArray) -> FloatArray:
        """Return a stage's scores of encoded rows at a relevance of 1, shape (n,)."""
        found = linear_scores(self._weights[stage], self._design.base(matrix), self._design.channel_codes(matrix))
        booster = self._boosters.get(stage)
        return found if booster is None else found + booster.raw_scores(matrix)

    def relevance_weight(self, stage: str, codes: IntArray) -> FloatArray:
        """Return what log relevance is multiplied by, for channels by their code; shape (n,)."""
        weights = self._relevance[stage]
        if not len(weights):
            return np.zeros(len(codes))
        own = np.where(codes >= 0, weights[1 + np.maximum(codes, 0)], 0.0) if len(weights) > 1 else 0.0
        found: FloatArray = weights[0] + own
        return found

    def curves(
        self,
        context: Context,
        sends: Sequence[tuple[str, float]],
        made: Sequence[Made],
        margin_micros: float,
        harm_micros: float,
    ) -> Curves:
        """Return the curves of sends, as (channel, hours since 1970), given what was made before.

        The context's factors multiply what the stages say.
        """
        channels = list(dict.fromkeys([*(c for c, _ in sends), *(m.channel for m in made)]))
        place = {channel: i for i, channel in enumerate(channels)}
        matrix = self._encoder.encode_channels(context, channels)
        base, codes = self._design.base(matrix), self._design.channel_codes(matrix)

        def score(stage: str, rows: slice = slice(None)) -> FloatArray:
            found = linear_scores(self._weights[stage], base[rows], codes[rows])
            booster = self._boosters.get(stage)
            return found if booster is None else found + booster.raw_scores(np.ascontiguousarray(matrix[rows]))

        def factor(stage: str) -> FloatArray:
            by_channel = context.factors.get(stage)
            if not by_channel:
                return np.ones(len(channels))
            return np.array([by_channel[c].value if c in by_channel else 1.0 for c in channels])

        now = context.decide_time.timestamp() / 3600
        origin = math.floor(now)
        expire = context.message.expire_time.timestamp() / 3600
        last = max((s for _, s in sends), default=now)
        cells = int(min(max(math.ceil(min(expire, last + AGES)) - origin, 1), _MOST_CELLS))
        grid = np.arange(cells)
        customer = context.customer
        week = hours_of_week(range(origin, origin + cells), customer.time_zone)
        rhythm = np.log(self._rhythms.of(count_week(customer.active_hours, customer.time_zone)))[week]
        relevance = self._log_relevance(context, origin + grid + 0.5)

        hour_factor = np.array([self._by_hour(channel, rhythm, week) for channel in channels])
        alone = np.exp(np.minimum(score("notice"), 20.0))
        attention = alone * factor("notice")
        organic = float(_logistic(score("organic", slice(0, 1)))[0]) if channels else 0.0
        click_score = score("click")
        click = self._click(click_score, codes, relevance)
        q = _corrected(click, factor("click"))
        order = _logistic(score("order")[:, None] + self.relevance_weight("order", codes)[:, None] * relevance)
        gain = self.description.scale * factor("order")[:, None] * np.maximum(order - organic, 0.0)
        unsubscribe_alone = _logistic(score("unsubscribe"))
        refuse = np.minimum(unsubscribe_alone * factor("unsubscribe"), 1.0)
        delivered_alone = np.array([self.description.delivered.get(channel, 1.0) for channel in channels])
        delivered = np.minimum(delivered_alone * factor("deliver"), 1.0)

        of = np.array([place[c] for c, _ in sends], dtype=np.intp)
        hours = np.array([s for _, s in sends])
        hazard = self._hazard([c for c, _ in sends], of, hours - origin, grid, hour_factor)
        noticed = _noticed(hazard * attention[of][:, None], delivered[of])
        weights = weights_alone = _NODE_WEIGHTS
        pending_q = np.ones((len(_NODES), cells))
        made_of = np.array([place[m.channel] for m in made], dtype=np.intp)
        for m, i in zip(made, made_of, strict=True):
            if m.noticed_hours is not None:
                then = self._log_relevance(context, np.array([m.noticed_hours]))
                known = self._click(score("click", slice(i, i + 1)), codes[i : i + 1], then)
                weights = weights * (1 - _corrected(known, factor("click")[i : i + 1])[0, :, 0])
                weights_alone = weights_alone * (1 - known[0, :, 0])
        weights = weights / weights.sum()
        weights_alone = weights_alone / weights_alone.sum()
        open_made = [(m, i) for m, i in zip(made, made_of, strict=True) if m.noticed_hours is None]
        pending_worth = np.zeros((len(_NODES), cells))
        if open_made:
            starts = np.array([m.send_hours for m, _ in open_made]) - origin
            which = np.array([i for _, i in open_made], dtype=np.intp)
            waiting = _noticed(
                self._hazard([m.channel for m, _ in open_made], which, starts, grid, hour_factor)
                * attention[which][:, None],
                np.ones(len(which)),
            )
            worth, before, _, _, _ = _combine(
                waiting, q[which], gain[which], refuse[which], weights, margin_micros, harm_micros
            )
            pending_q = before.prod(axis=0)
            for i in range(len(open_made)):
                others = np.prod(np.delete(before, i, axis=0), axis=0) if len(open_made) > 1 else 1.0
                pending_worth += worth[i] * others
        worth, before, uplift, unsubscribe, clicked = _combine(
            noticed, q[of], gain[of], refuse[of], weights, margin_micros, harm_micros
        )
        return Curves(
            channel=tuple(c for c, _ in sends),
            start=np.clip(np.floor(hours - origin).astype(np.intp), 0, cells - 1),
            worth=worth,
            before=before,
            weights=weights,
            pending_worth=pending_worth,
            pending_before=pending_q,
            uplift=uplift,
            p_unsubscribe=unsubscribe,
            p_notice=noticed.sum(axis=1),
            p_click=clicked,
            p_organic=organic,
            row=np.arange(len(sends)),
            forecasts=Forecasts(
                send_hours=hours,
                of=of,
                hazard=hazard * alone[of][:, None],
                origin=origin,
                click=np.einsum("z,czg->cg", weights_alone, click),
                order=order,
                unsubscribe=unsubscribe_alone,
                delivered=delivered_alone,
            ),
        )

    def _by_hour(self, channel: str, log_rhythm: FloatArray, week: IntArray) -> FloatArray:
        lag = self.description.lags.get(channel)
        return np.exp(log_rhythm) if lag is None else lag.by_hour(log_rhythm, week)

    def _click(self, score: FloatArray, codes: IntArray, relevance: FloatArray) -> FloatArray:
        """Return P(click | noticed) by node and cell, shape (n, Z, G)."""
        sigma = self.description.interest_deviation
        spread = math.sqrt(1 + 0.346 * sigma**2)
        logit = spread * (score[:, None] + self.relevance_weight("click", codes)[:, None] * relevance)
        return _logistic(logit[:, None, :] + sigma * _NODES[:, None])

    def _log_relevance(self, context: Context, hours: FloatArray) -> FloatArray:
        """Return the log of the relevance left at hours since 1970."""
        half_life = context.message.relevance_half_life_seconds
        if half_life is None:
            return np.zeros(len(hours))
        begin = context.message.earliest_time.timestamp() / 3600
        found: FloatArray = -math.log(2) * np.maximum(hours - begin, 0.0) * 3600 / half_life
        return found

    def _hazard(
        self, channels: Sequence[str], of: IntArray, starts: FloatArray, grid: IntArray, hour_factor: FloatArray
    ) -> FloatArray:
        """Return the hazard, at an attention of 1, of sends at `starts`, hours after the first cell's begin; shape (m, G)."""
        if not len(of):
            return np.zeros((0, len(grid)))
        keep = np.array([self._keep.get(channel, self._usual_keep) for channel in channels])
        first = np.floor(starts).astype(np.intp)
        age = grid[None, :] - first[:, None]
        kept = np.where((age >= 0) & (age < AGES), np.take_along_axis(keep, age.clip(0, AGES - 1), axis=1), 0.0)
        kept = np.where(age == 0, kept * (1 - (starts - first))[:, None], kept)
        found: FloatArray = kept * hour_factor[of]
        return found


def _corrected(click: FloatArray, factor: FloatArray) -> FloatArray:
    """Return P(click | noticed), shape (n, Z, G), times a factor of shape (n,)."""
    found: FloatArray = np.minimum(click * factor[:, None, None], _MOST_CLICK)
    return found


def _noticed(hazard: FloatArray, delivered: FloatArray) -> FloatArray:
    """Return P(noticed in cell), shape (m, G)."""
    unseen = np.exp(-np.cumsum(hazard, axis=1))
    found = -np.diff(unseen, axis=1, prepend=1.0)
    return found * delivered[:, None]


def _combine(
    noticed: FloatArray,
    q: FloatArray,
    gain: FloatArray,
    refuse: FloatArray,
    weights: FloatArray,
    margin: float,
    harm: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return worth and before, each (m, Z, G), uplift, P(unsubscribe) and P(click), each (m,)."""
    click = noticed[:, None, :] * q
    left = (noticed[:, None, :] - click) * refuse[:, None, None]
    reacted = np.cumsum(click + left, axis=2)
    before = np.empty_like(reacted)
    before[:, :, 0] = 1.0
    before[:, :, 1:] = 1 - reacted[:, :, :-1]
    of_click = np.einsum("z,mzg->mg", weights, click)
    uplift: FloatArray = (of_click * gain).sum(axis=1)
    unsubscribe: FloatArray = np.einsum("z,mzg->m", weights, left)
    worth = weights[None, :, None] * (click * (margin * gain)[:, None, :] - harm * left)
    return worth, before, uplift, unsubscribe, of_click.sum(axis=1)


def _logistic(x: FloatArray) -> FloatArray:
    found: FloatArray = 1 / (1 + np.exp(-np.clip(x, -40.0, 40.0)))
    return found


def made_before(context: Context) -> tuple[Made, ...]:
    """Return the sends of this message that were made, as contacts tell."""
    return tuple(
        Made(
            channel=c.channel,
            send_hours=c.start.timestamp() / 3600,
            noticed_hours=None if c.seen_time is None else c.seen_time.timestamp() / 3600,
        )
        for c in context.customer.contacts
        if c.decision_id == context.decision_id
    )


def sends_of(actions: Sequence[Action]) -> list[tuple[str, float]]:
    """Return the sends among actions as (channel, hours since 1970)."""
    return [(a.channel, a.send_time.timestamp() / 3600) for a in actions if a.send_time is not None]


PLAIN_KEPT = 0.8
"""How much of a send's effect is left with each earlier step that was ignored, where the model draws no curves."""
_PLAIN_INTEREST = 1.0


def plain_curves(
    context: Context,
    sends: Sequence[tuple[str, float]],
    uplift: FloatArray,
    p_unsubscribe: FloatArray,
    wait_hours: FloatArray,
    margin_micros: float,
    harm_micros: float,
) -> Curves:
    """Return curves of sends of which only the uplift is known; arrays have shape (m,).

    Reactions come with an exponential lag of half the channel's usual wait; interest spreads as in the module's formula, with sigma 1.
    """
    origin = math.floor(context.decide_time.timestamp() / 3600)
    expire = context.message.expire_time.timestamp() / 3600
    hours = np.array([s for _, s in sends]) - origin
    last = float(hours.max(initial=0.0))
    cells = int(min(max(math.ceil(min(expire - origin, last + AGES)), 1), _MOST_CELLS))
    grid = np.arange(cells)
    start = np.clip(np.floor(hours).astype(np.intp), 0, cells - 1)
    age = grid[None, :] - start[:, None]
    lag = np.where(age >= 0, np.exp(-np.maximum(age, 0) * 2 / np.maximum(wait_hours, 0.5)[:, None]), 0.0)
    lag = lag / lag.sum(axis=1, keepdims=True)
    spread = math.sqrt(1 + 0.346 * _PLAIN_INTEREST**2)
    chance = np.clip(uplift, 1e-9, 0.98)
    q = _logistic(spread * np.log(chance / (1 - chance))[:, None] + _PLAIN_INTEREST * _NODES)
    q = q * (chance / (q @ _NODE_WEIGHTS))[:, None]
    q = np.where((uplift > 0)[:, None], np.minimum(q, 1.0), 0.0)
    click = q[:, :, None] * lag[:, None, :]
    left = p_unsubscribe[:, None, None] * lag[:, None, :] * (1 - q)[:, :, None]
    reacted = np.minimum(np.cumsum(click + left, axis=2), 1.0)
    before = np.ones_like(reacted)
    before[:, :, 1:] = 1 - reacted[:, :, :-1]
    exact = np.where((uplift > 0)[:, None, None], click, lag[:, None, :] * np.minimum(uplift, 0.0)[:, None, None])
    return Curves(
        channel=tuple(c for c, _ in sends),
        start=start,
        worth=_NODE_WEIGHTS[None, :, None] * (exact * margin_micros - harm_micros * left),
        before=before,
        weights=_NODE_WEIGHTS,
        pending_worth=np.zeros((len(_NODES), cells)),
        pending_before=np.ones((len(_NODES), cells)),
        uplift=uplift,
        p_unsubscribe=p_unsubscribe,
        p_notice=np.ones(len(sends)),
        p_click=np.maximum(uplift, 0.0),
        p_organic=0.0,
        row=np.arange(len(sends)),
    )
