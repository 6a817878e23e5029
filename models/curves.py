"""What comes of a send, hour by hour: delivered, noticed, clicked, ordered.

For a context x and a send through channel c at time s, in cells g of one hour up to the message's expiry,

    hazard of noticing   lambda(g) = exp(notice(x, c)) x keep_c(g - s) x rhythm(g)^power_c x hour_c(g) x open(g)
    noticed in cell g    N(g) = delivered_c (exp(-sum_{j<g} lambda(j)) - exp(-sum_{j<=g} lambda(j)))
    clicked              q_z(g) = logistic(k (click(x, c) + d_c log relevance(g)) + sigma t_z),     k = sqrt(1 + 0.346 sigma^2)
    unsubscribed         r = logistic(unsubscribe(x, c)) of those who noticed and did not click
    gain of a click      o_z(g) = scale x m_z(g) x (1 - logistic(organic(x))) x logistic(order(x, c) + e_c log relevance(g))
                         m_z(g) = exp(tau sigma t_z) / (sum_z w_z q_z(g) exp(tau sigma t_z) / sum_z w_z q_z(g))

open(g) is the share of the hour that lies between the send, or now if that is later, and the expiry; nothing is noticed more than 72 hours after its
send. relevance(g) halves with each half-life of the message; rhythm is the customer's (models.rhythm). Interest in this one message is a
standard normal t of which three Gauss-Hermite nodes t_z with weights w_z are taken; k keeps the chance of a click, averaged over t, near what the
stage says (Zeger, Liang & Albert 1988). Who is more interested also buys more after a click: tau says how much of it carries over, and m is such that of those who
click in a first send the mean gain is what the stages say. Who noticed a message and did nothing has less of it: the weights of later steps are
multiplied by 1 - q_z; who clicked has more: by q_z. The stage order is of what a click adds for who would not order anyway; in bundles from before it was of
orders whatever their cause, and the gain max(0, logistic(order + b organic + e_c log relevance) - logistic(organic)). notice, click, order, organic and unsubscribe are stages (models.stage). `scale` fits the sum of
effects to the randomised difference between send and no send.

Cells begin at the first send, or now where a send made before is still open. They are of one hour for the first five days; then, for messages
planned further ahead than most, of six hours up to two weeks, and then of a day: N is worked out by the hour and summed, so that only
relevance is coarser there, and a step may follow another only a cell later.
"""

import ctypes
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, lru_cache
from itertools import compress
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models import compiled
from models.booster import Booster
from models.context import Context
from models.correction import GROUP_EDGES, ORDER_HOURS, Forecast
from models.features import Column, Encoder, is_of_context
from models.rhythm import WEEK, Rhythms, RhythmTypes, count_week, hours_of_week
from models.slate import Action, Actions
from models.stage import Design, Scaling, linear_scores, sums_by_channel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
AGES = 72
HOUR_BINS = 16
STAGES = ("notice", "click", "order", "organic", "unsubscribe")
_AGE_EDGES = np.array([1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 36, 50])
_AGE_BINS = np.searchsorted(_AGE_EDGES, np.arange(AGES), side="right")
AGE_BINS = len(_AGE_EDGES) + 1
_HOURLY, _SIX_HOURLY = 5 * 24, 14 * 24
_LEAST_LOG_RELEVANCE = -30.0
NODES = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
NODE_WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])
_MOST_CLICK = 0.98
_TINY = 1e-300
_LEAST_DOUBT = 1e-9
"""What happened had at least this chance, whatever the stage says: interest has weights then too."""
_FORMAT = 1
"""Of curves.c's arguments; both files change it together."""
_IGNORE = ConfigDict(extra="ignore")
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def age_bins(age: IntArray) -> IntArray:
    """Return the bin of ages in hours, 0 to 71."""
    found: IntArray = _AGE_BINS[age]
    return found


@lru_cache(maxsize=1024)
def cell_begins(hours: int) -> IntArray:
    """Return when each cell begins, in hours after the first, of cells that hold so many hours."""
    far = [*range(_HOURLY, min(hours, _SIX_HOURLY), 6), *range(_SIX_HOURLY, hours, 24)]
    return np.concatenate([np.arange(min(hours, _HOURLY)), np.array(far, dtype=np.intp)])


def log_relevance(hours: FloatArray, half_life_hours: FloatArray | float) -> FloatArray:
    """Return the log of the relevance left so many hours after a message's earliest time; no lower than that of 43 half-lives."""
    found: FloatArray = np.maximum(-math.log(2) * np.maximum(hours, 0.0) / half_life_hours, _LEAST_LOG_RELEVANCE)
    return found


def hour_bins(hour: IntArray) -> IntArray:
    """Return the bin of hours of the week: eight of three hours for working days, eight for the weekend."""
    found: IntArray = hour % 24 // 3 + 8 * (hour >= 5 * 24)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLag:
    """How long a channel's messages keep being noticed, and how the channel follows its readers' rhythm."""

    __pydantic_config__ = _IGNORE

    log_keep: Annotated[tuple[_Finite, ...], Field(min_length=AGE_BINS, max_length=AGE_BINS)]
    """Log rate by bin of age."""
    power: _Finite
    log_hours: Annotated[tuple[_Finite, ...], Field(min_length=HOUR_BINS, max_length=HOUR_BINS)]
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
    organic: _Finite = 0.0
    """Weight of the score of the stage organic, in bundles from before `order_is_caused`; 0 where the stage has none."""
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
    order_interest: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """tau."""
    order_is_caused: bool = False
    """Whether the stage order says P(the click causes an order | none would come anyway); in bundles from before, P(order | click), caused or not."""
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    window_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = float(ORDER_HOURS)
    """How long after a decision orders were looked for."""
    notes: dict[str, str] = field(default_factory=dict)
    """For people: which stages had too little data, and what stands in for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A send of this message that was made before: its channel and time, and when it was noticed; hours since 1970."""

    channel: str
    send_hours: float
    noticed_hours: float | None = None
    """None: not yet, as far as is known."""
    is_clicked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """How the reactions to m sends come where only their sizes differ: P(no reaction before g | z) = 1 - r_z L(g), and worth = w_z l(g)."""

    lags: FloatArray
    """l: shares of the reactions by cell, one row for sends that begin and wait alike; L(g) is the sum of those before g."""
    row: IntArray
    """Which of the rows is each send's, shape (m,)."""
    kind: IntArray
    """Of each row of lags, numbers from 0: those of one kind fall alike from cell to cell."""
    kinds: int
    reacts: FloatArray
    """r, shape (m, Z)."""
    gains: FloatArray
    """w in micros, shape (m, Z)."""

    def keep(self, mask: NDArray[np.bool_]) -> "Shapes":
        """Return the shapes of the sends for which the mask, shape (m,), is true."""
        return replace(self, row=self.row[mask], reacts=self.reacts[mask], gains=self.gains[mask])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """m sends, each as if alone, over Z nodes of interest and G cells.

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
    begin: IntArray | None = None
    """When each cell begins, in hours after the first, shape (G,); None: each is of one hour."""
    row: IntArray | None = None
    """Place of each send in the forecasts, shape (m,); None where there are none."""
    forecasts: "Forecasts | None" = None
    shapes: Shapes | None = None
    """Where the curves are of such shapes."""

    def ready(self, wait_hours: int) -> IntArray:
        """Return the first cell that begins so many hours after that of each send, shape (m,); G where there is none."""
        if self.begin is None:
            return self.start + wait_hours
        return np.searchsorted(self.begin, self.begin[self.start] + wait_hours)

    def keep(self, mask: NDArray[np.bool_]) -> "Curves":
        """Return the curves of the sends for which the mask, shape (m,), is true."""
        return replace(
            self,
            channel=tuple(compress(self.channel, mask.tolist())),
            row=None if self.row is None else self.row[mask],
            shapes=None if self.shapes is None else self.shapes.keep(mask),
            **{name: getattr(self, name)[mask] for name in _BY_SEND},
        )


_BY_SEND = ("start", "worth", "before", "uplift", "p_unsubscribe", "p_notice", "p_click")


class FunnelModel:
    """The funnel, ready to draw curves."""

    def __init__(self, description: FunnelDescription, boosters: Mapping[str, Booster]) -> None:
        _check_parts(description)
        self.description = description
        self.boosters = dict(boosters)
        self._encoder = Encoder(description.columns)
        self._design = Design(description.columns, description.scaling)
        self._rhythms = Rhythms(description.rhythm)
        self._weights = {name: np.array(stage.weights) for name, stage in description.stages.items()}
        self._not_of_context = [i for i, c in enumerate(description.columns) if not is_of_context(c.name)]
        self._tables = _Tables.of(description, self._design)

    @property
    def tree_count(self) -> int:
        """Trees of all stages."""
        return sum(booster.tree_count for booster in self.boosters.values())

    def scores(self, stage: str, matrix: FloatArray) -> FloatArray:
        """Return a stage's scores of encoded rows at a relevance of 1, shape (n,)."""
        found = linear_scores(self._weights[stage], self._design.base(matrix), self._design.channel_codes(matrix))
        return found + self._trees(stage, matrix)

    def _trees(self, stage: str, matrix: FloatArray) -> FloatArray | float:
        booster = self.boosters.get(stage)
        return 0.0 if booster is None else booster.raw_scores(matrix)

    def curves(
        self,
        context: Context,
        sends: Sequence[tuple[str, float]],
        made: Sequence[Made],
        margin_micros: float,
        harm_micros: float,
        actions: Actions | None = None,
    ) -> Curves:
        """Return the curves of sends, as (channel, hours since 1970), given what was made before.

        The context's factors multiply what the stages say. A send made before that is not known to have failed has been delivered. Where the sends are
        those of `actions`, what does not hang on the customer is worked out once for all who have the same.
        """
        now, expire = context.decide_time, context.message.expire_time
        if actions is None or made:
            frame = self._frame(now, expire, sends, made)
        else:
            frame = actions.once((self, now, expire), lambda: self._frame(now, expire, sends, made))
        grid, of, place = frame.grid, frame.of, frame.place
        stages = self._stages(context, list(place), frame.rows)
        alone = stages.attention[:, None] * self._by_hour(context, stages.rows, grid)
        hazard = stages.notice_factor[:, None] * alone
        delivered = np.minimum(stages.delivered * stages.deliver_factor, 1.0)
        weights, weights_alone = self._weights_of_interest(context, stages, place, made)
        click_score, order_score = self._scores(stages, _log_relevance(context, grid.middle()))
        click = self._click(click_score)
        tilt, order = self._tilt(click), self._order_once_clicked(order_score, stages.organic)
        react = self._reactions(stages, click, order, tilt, weights, margin_micros, harm_micros)

        noticed = _noticed(grid, frame.kept, of, hazard) * delivered[of, None]
        worth, before = react.along(noticed, of)
        pending_worth, pending_before = np.zeros(before.shape[1:]), np.ones(before.shape[1:])
        for m in made:
            if m.noticed_hours is not None:
                continue
            i = np.array([place[m.channel]])
            kept = _kept(grid, np.array([m.send_hours]), i, self._tables.keep[frame.rows])
            late = _noticed(grid, kept, i, hazard)
            late = late if m.send_hours <= grid.now else late * delivered[i, None]
            one_worth, one_before = react.along(late, i)
            pending_worth = pending_worth * one_before[0] + one_worth[0] * pending_before
            pending_before = pending_before * one_before[0]
        clicked, ordered, left = np.einsum("mg,mkg->km", noticed, react.chances[of])
        return Curves(
            channel=frame.names,
            start=frame.start,
            worth=worth,
            before=before,
            weights=weights,
            pending_worth=pending_worth,
            pending_before=pending_before,
            uplift=ordered,
            p_unsubscribe=left,
            p_notice=noticed.sum(axis=1),
            p_click=clicked,
            p_organic=stages.organic,
            begin=grid.begin,
            row=np.arange(len(sends)),
            forecasts=Forecasts(
                frame=frame,
                hazard=alone,
                stages=stages,
                click=click,
                weights=weights_alone,
                order=self._order(stages, click, order, tilt, weights_alone),
                window_hours=self.description.window_hours,
            ),
        )

    def _frame(
        self, now: datetime, expire: datetime, sends: Sequence[tuple[str, float]], made: Sequence[Made]
    ) -> "_Frame":
        names, send_hours = tuple(channel for channel, _ in sends), [hour for _, hour in sends]
        place = {channel: i for i, channel in enumerate(dict.fromkeys([*names, *(m.channel for m in made)]))}
        rows = np.array([self._tables.row.get(channel, -1) for channel in place], dtype=np.intp)
        hours, of = np.array(send_hours), np.array([place[name] for name in names], dtype=np.intp)
        grid = _Grid.of(now, expire, send_hours, [m for m in made if m.noticed_hours is None])
        return _Frame(
            names=names,
            hours=hours,
            place=place,
            of=of,
            rows=rows,
            grid=grid,
            kept=_kept(grid, hours, of, self._tables.keep[rows]),
            start=grid.cells_of(send_hours),
        )

    def _stages(self, context: Context, channels: Sequence[str], rows: IntArray) -> "_Stages":
        """Return what the stages say of each channel, given its row of the tables, with what they say of the context alone."""
        matrix = self._encoder.encode_channels(context, [*channels, ""])
        matrix[-1, self._not_of_context] = np.nan
        linear = np.einsum("nf,fsn->sn", self._design.base(matrix), self._tables.weights[:, :, np.append(rows, -1)])
        notice, click, order, organic, leave = (
            linear[i, mine] + self._trees(stage, matrix[mine]) for i, (stage, mine) in enumerate(_ROWS_OF_STAGES)
        )

        def factor(stage: str) -> FloatArray:
            known = context.factors.get(stage, {})
            return np.array([known[c].value if c in known else 1.0 for c in channels])

        return _Stages(
            rows=rows,
            delivered=self._tables.delivered[rows],
            deliver_factor=factor("deliver"),
            attention=np.exp(np.minimum(notice, 20.0)),
            notice_factor=factor("notice"),
            click=click,
            click_factor=factor("click"),
            order=order + self.description.stages["order"].organic * organic,
            gain_factor=self.description.scale * factor("order"),
            leave=_logistic(leave),
            leave_factor=factor("unsubscribe"),
            organic=float(_logistic(organic)[0]),
        )

    def _weights_of_interest(
        self, context: Context, stages: "_Stages", place: Mapping[str, int], made: Sequence[Made]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights of the nodes given what came of the sends that were noticed, with factors and by the bundle alone, shape (Z,)."""
        weights = weights_alone = NODE_WEIGHTS
        for m in made:
            if m.noticed_hours is not None:
                score, _ = self._scores(stages, _log_relevance(context, np.array([m.noticed_hours])))
                alone = self._click(score)
                q, q_alone = (
                    np.clip(x[place[m.channel], :, 0], _LEAST_DOUBT, 1 - _LEAST_DOUBT)
                    for x in (_corrected(alone, stages.click_factor), alone)
                )
                weights = weights * (q if m.is_clicked else 1 - q)
                weights_alone = weights_alone * (q_alone if m.is_clicked else 1 - q_alone)
        return weights / weights.sum(), weights_alone / weights_alone.sum()

    def _by_hour(self, context: Context, rows: IntArray, grid: "_Grid") -> FloatArray:
        """Return by what the hazard of channels is multiplied in each hour of the grid, shape (n, H)."""
        customer = context.customer
        week = hours_of_week(np.arange(grid.origin, grid.origin + grid.hours), customer.time_zone)
        rhythm = np.log(self._rhythms.of(count_week(customer.active_hours, customer.time_zone)))[week]
        found: FloatArray = np.exp(self._tables.power[rows, None] * rhythm + self._tables.log_week[rows[:, None], week])
        return found

    def _scores(self, stages: "_Stages", relevance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the scores of a click and of an order at these logs of relevance, each by channel and cell, shape (n, G)."""
        rows = stages.rows
        click = stages.click[:, None] + self._tables.click_decay[rows, None] * relevance
        return click, stages.order[:, None] + self._tables.order_decay[rows, None] * relevance

    def _click(self, score: FloatArray) -> FloatArray:
        """Return P(click | noticed) by channel, node and cell, without factors, shape (n, Z, G)."""
        sigma = self.description.interest_deviation
        logit = math.sqrt(1 + 0.346 * sigma**2) * score
        return _logistic(logit[:, None, :] + sigma * NODES[:, None])

    def _order_once_clicked(self, score: FloatArray, organic: float) -> FloatArray:
        """Return P(order | click), caused or not, of scores of the stage order, of their shape."""
        found = _logistic(score)
        return organic + (1.0 - organic) * found if self.description.order_is_caused else found

    def _tilt(self, click: FloatArray) -> FloatArray | None:
        """Return m, by how much more or less than on average who clicks is moved to order at each node, shape (n, Z, G); None: it is 1."""
        if self.description.order_interest * self.description.interest_deviation == 0:
            return None
        buying = np.exp(self.description.order_interest * self.description.interest_deviation * NODES)[:, None]
        mean = (NODE_WEIGHTS @ (click * buying)) / np.maximum(NODE_WEIGHTS @ click, _TINY)
        found: FloatArray = buying / np.maximum(mean, _TINY)[:, None, :]
        return found

    def _order(
        self, stages: "_Stages", click: FloatArray, order: FloatArray, tilt: FloatArray | None, weights: FloatArray
    ) -> FloatArray:
        """Return P(order | click) at these weights, without factors and scale, shape (n, G)."""
        if tilt is None:
            return order
        among = (weights @ (click * tilt)) / np.maximum(weights @ click, _TINY)
        found: FloatArray = np.minimum(order + (among - 1) * np.maximum(order - stages.organic, 0.0), 1.0)
        return found

    def _reactions(
        self,
        stages: "_Stages",
        click_alone: FloatArray,
        order: FloatArray,
        tilt: FloatArray | None,
        weights: FloatArray,
        margin: float,
        harm: float,
    ) -> "_Reactions":
        """Return what follows once a message is noticed, by channel and cell."""
        q = _corrected(click_alone, stages.click_factor)
        caused = (stages.gain_factor[:, None] * np.maximum(order - stages.organic, 0.0))[:, None, :]
        gain = np.minimum(caused if tilt is None else caused * tilt, 1.0 - stages.organic)
        left = (1 - q) * np.minimum(stages.leave * stages.leave_factor, 1.0)[:, None, None]
        click = weights @ q
        return _Reactions(
            worth=weights[:, None] * (q * (margin * gain) - harm * left),
            reacts=q + left,
            chances=np.stack([click, weights @ (q * gain), weights @ left], axis=1),
        )


_ROWS_OF_STAGES = tuple((stage, slice(-1, None) if stage == "organic" else slice(-1)) for stage in STAGES)
"""The last row is of the context alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """What a bundle knows of each channel, one row each, and last a row for those that it does not know."""

    row: dict[str, int]
    keep: FloatArray
    """Rate of noticing by age in hours from -2 to 73, 0 before the send and from 72 hours on; shape (c + 1, 76)."""
    power: FloatArray
    log_week: FloatArray
    """Log factor by hour of the week, shape (c + 1, 168)."""
    delivered: FloatArray
    weights: FloatArray
    """Of the linear parts, shape (width, stages, c + 1)."""
    click_decay: FloatArray
    """What log relevance is multiplied by in the score of a click, shape (c + 1,)."""
    order_decay: FloatArray

    @classmethod
    def of(cls, description: FunnelDescription, design: Design) -> "_Tables":
        names = tuple(dict.fromkeys([*design.channels, *description.lags, *description.delivered]))
        log_keep = [np.log(lag.by_age()) for lag in description.lags.values()]
        usual = np.exp(np.mean(log_keep, axis=0)) if log_keep else np.full(AGES, 0.01)
        keep, power, log_week = np.tile(usual, (len(names) + 1, 1)), np.ones(len(names) + 1), []
        for i, name in enumerate((*names, "")):
            lag = description.lags.get(name)
            if lag is not None:
                keep[i], power[i] = lag.by_age(), lag.power
            log_week.append(np.zeros(WEEK) if lag is None else np.array(lag.log_hours)[hour_bins(np.arange(WEEK))])
        known = np.append(np.arange(len(design.channels)), [-1] * (len(names) + 1 - len(design.channels)))

        def by_row(weights: Sequence[Sequence[float]]) -> FloatArray:
            found: FloatArray = sums_by_channel(np.array(weights), len(design.channels))[known]
            return found

        def decay(stage: str) -> FloatArray:
            return by_row([[x] for x in description.stages[stage].relevance or (0.0,)])[:, 0]

        return cls(
            row={name: i for i, name in enumerate(names)},
            keep=np.pad(keep, ((0, 0), (2, 2))),
            power=power,
            log_week=np.array(log_week),
            delivered=np.array([description.delivered.get(name, 1.0) for name in (*names, "")]),
            weights=np.array([by_row(description.stages[stage].weights) for stage in STAGES]).transpose(2, 0, 1).copy(),
            click_decay=decay("click"),
            order_decay=decay("order"),
        )


def _check_parts(description: FunnelDescription) -> None:
    """Raise a ValueError that names the part where sizes do not fit each other."""
    columns, scaling, rhythm = len(description.columns), description.scaling, description.rhythm
    for name, known in (
        ("means", scaling.means),
        ("deviations", scaling.deviations),
        ("has_missing", scaling.has_missing),
    ):
        if len(known) != columns:
            raise ValueError(f"scaling.{name} has {len(known)} entries for {columns} columns")
    if len(rhythm.shares) != len(rhythm.weeks):
        raise ValueError(f"rhythm has {len(rhythm.shares)} shares for {len(rhythm.weeks)} weeks")
    design = Design(description.columns, scaling)
    rows = 1 + len(design.channels)
    for name, stage in description.stages.items():
        if len(stage.weights) != rows or any(len(row) != design.width for row in stage.weights):
            raise ValueError(f"stages.{name}.weights must have {rows} rows of {design.width}, the columns' width")
        if len(stage.relevance) not in (0, rows):
            raise ValueError(
                f"stages.{name}.relevance has {len(stage.relevance)} entries; it must have {rows}, or none"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """What the stages say of n channels, and the factors on that; arrays of shape (n,). `click` and `order` are scores at a relevance of 1."""

    rows: IntArray
    """Of the tables."""
    delivered: FloatArray
    deliver_factor: FloatArray
    attention: FloatArray
    notice_factor: FloatArray
    click: FloatArray
    click_factor: FloatArray
    order: FloatArray
    gain_factor: FloatArray
    leave: FloatArray
    leave_factor: FloatArray
    organic: float
    """P(order) without a send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reactions:
    """What follows once a message of a channel is noticed in a cell."""

    worth: FloatArray
    """Expected micros, times the weight of the node, shape (n, Z, G)."""
    reacts: FloatArray
    """P(click or unsubscribe), shape (n, Z, G)."""
    chances: FloatArray
    """P(click), P(order caused) and P(unsubscribe) over the nodes, shape (n, 3, G)."""

    def along(self, noticed: FloatArray, of: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return worth in a cell and P(no reaction before it) of sends of these channels, noticed with (m, G); both of shape (m, Z, G)."""
        library = _kernel()
        if library is not None:
            return self._along_by_kernel(library, noticed, of)
        here = noticed[:, None, :]
        reacted = self.reacts.take(of, axis=0)
        reacted *= here
        before = np.empty_like(reacted)
        before[:, :, 0] = 1.0
        np.cumsum(reacted[:, :, :-1], axis=2, out=before[:, :, 1:])
        np.subtract(1.0, before[:, :, 1:], out=before[:, :, 1:])
        worth = self.worth.take(of, axis=0)
        worth *= here
        return worth, before

    def _along_by_kernel(self, library: Any, noticed: FloatArray, of: IntArray) -> tuple[FloatArray, FloatArray]:
        """Do the same by curves.c."""
        nodes, cells = self.reacts.shape[1:]
        worth, before = np.empty((2, len(of), nodes, cells))
        where = map(compiled.address, (noticed, of, self.worth, self.reacts, worth, before))
        library.along(len(of), nodes, cells, *where)
        return worth, before


@cache
def _kernel() -> Any:
    """Return curves.c's library, None where it was not compiled."""
    library = compiled.load("curves", _FORMAT)
    if library is not None:
        library.along.argtypes = (*[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 6)
        library.plain.argtypes = (
            *[ctypes.c_int64] * 3,
            *[ctypes.c_void_p] * 6,
            *[ctypes.c_double] * 2,
            *[ctypes.c_void_p] * 2,
        )
        library.along.restype = library.plain.restype = None
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The hours of a plan, and the cells that they are taken together in."""

    now: float
    """Hours since 1970."""
    expire: float
    origin: int
    """The first hour, since 1970."""
    hours: int
    begin: IntArray
    """When each cell begins, in hours after the first, shape (G,)."""
    first: float
    """When the first send is made, hours since 1970."""

    @classmethod
    def of(
        cls, decide_time: datetime, expire_time: datetime, sends: Sequence[float], open_made: Sequence[Made]
    ) -> "_Grid":
        """Return the grid from the first send, or from now where one made before is open, until the last has had its time."""
        now, expire = decide_time.timestamp() / 3600, expire_time.timestamp() / 3600
        first = now if open_made or not sends else max(min(sends), now)
        last = max([first, *sends, *(m.send_hours for m in open_made)])
        origin = math.floor(first)
        hours = max(math.ceil(min(expire, last + AGES)) - origin, 1)
        return cls(now=now, expire=expire, origin=origin, hours=hours, begin=cell_begins(hours), first=first)

    def middle(self) -> FloatArray:
        """Return the middle of what is left of each cell between the first send and the expiry, hours since 1970, shape (G,)."""
        ends = np.append(self.begin[1:], self.hours)
        least, most = np.maximum(self.begin, self.first - self.origin), np.minimum(ends, self.expire - self.origin)
        found: FloatArray = self.origin + (least + most) / 2
        return found

    def cells_of(self, hours: Sequence[float]) -> IntArray:
        """Return the cell of each of these hours since 1970; the nearest one for those outside."""
        last = self.hours - 1
        found = np.array([min(max(math.floor(hour - self.origin), 0), last) for hour in hours], dtype=np.intp)
        return found if self.hours <= _HOURLY else np.searchsorted(self.begin, found, side="right") - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """What the curves of m sends through n channels hang on beside the customer and the message's relevance."""

    names: tuple[str, ...]
    """Channel of each send."""
    hours: FloatArray
    """When each send is made, hours since 1970, shape (m,)."""
    place: dict[str, int]
    """Place of each channel; those of sends made before are among them."""
    of: IntArray
    """Place of each send's channel, shape (m,)."""
    rows: IntArray
    """Of the tables, shape (n,)."""
    grid: _Grid
    kept: FloatArray
    """See `_kept`, shape (m, H)."""
    start: IntArray
    """Cell of each send, shape (m,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What the bundle alone, without factors, says of m sends through n channels: the trials by which it is corrected later."""

    frame: _Frame
    hazard: FloatArray
    """Rate of noticing but for the age, by hour of the grid, shape (n, H)."""
    stages: _Stages
    click: FloatArray
    """P(click | noticed) by node and cell, shape (n, Z, G)."""
    weights: FloatArray
    """Of the nodes, given what was made before, shape (Z,)."""
    order: FloatArray
    """P(order | click) by cell, shape (n, G)."""
    window_hours: float

    def of_send(self, row: int) -> Forecast:
        """Return the forecast of one send."""
        channel, grid = self.frame.of[row], self.frame.grid
        rate = self.frame.kept[row] * self.hazard[channel]
        cell = np.searchsorted(grid.begin, np.arange(grid.hours), side="right") - 1
        click, order = (self.weights @ self.click[channel])[cell], self.order[channel][cell]
        hour = math.floor(self.frame.hours[row])
        edges = [min(max(hour + edge - grid.origin, 0), grid.hours) for edge in (0, *GROUP_EDGES)]
        found: list[tuple[float, float, float]] = []
        for begin, end in itertools.pairwise(edges):
            if end <= begin:
                break
            here = rate[begin:end]
            total = float(here.sum())
            share = here / total if total > 0 else np.full(end - begin, 1 / (end - begin))
            found.append((total, float(share @ click[begin:end]), float(share @ order[begin:end])))
        return Forecast(
            send_hour=hour,
            deliver=round(float(self.stages.delivered[channel]), 6),
            notice=tuple(round(hazard, 6) for hazard, _, _ in found),
            click=tuple(round(p, 6) for _, p, _ in found),
            order=tuple(round(p, 6) for _, _, p in found),
            unsubscribe=round(float(self.stages.leave[channel]), 6),
            order_until=math.floor(grid.now + self.window_hours),
        )


def _noticed(grid: _Grid, kept: FloatArray, of: IntArray, hazard: FloatArray) -> FloatArray:
    """Return P(noticed in cell | delivered) of sends through these channels, shape (m, G).

    `kept`, shape (m, H), is what `_kept` says of them; `hazard`, shape (n, H), is all the rest, by channel and hour of the grid.
    """
    total = (kept * hazard[of]).cumsum(axis=1)
    if len(grid.begin) < grid.hours:
        total = total[:, np.append(grid.begin[1:], grid.hours) - 1]
    by_then = np.negative(total, out=total)
    np.subtract(1.0, np.exp(by_then, out=by_then), out=by_then)
    noticed: FloatArray = by_then.copy()
    noticed[:, 1:] -= by_then[:, :-1]
    return noticed


def _kept(grid: _Grid, sends: FloatArray, of: IntArray, keep: FloatArray) -> FloatArray:
    """Return what the ages of sends at these hours since 1970 make of the hazard of noticing them in each hour of the grid, shape (m, H).

    `keep`, shape (n, 76), is by channel and age. A send within an hour is of two ages in each of the next, for its part of each.
    """
    first = np.floor(sends)
    late = sends - first
    room = grid.hours + 1
    rates = np.zeros((len(keep), keep.shape[1] + 2 * room))
    rates[:, room:-room] = keep
    shape = (len(rates), rates.shape[1] - grid.hours + 1, grid.hours)
    stretches = np.ndarray(shape, buffer=rates, strides=(*rates.strides, rates.itemsize))  # by channel and first age
    begins = np.minimum(np.maximum(grid.origin - first.astype(np.intp), -room), AGES + 1) + 2 + room
    kept = stretches[of, begins]
    within = np.flatnonzero(late)
    kept[within] += late[within, None] * (stretches[of[within], begins[within] - 1] - kept[within])
    begin = np.maximum(sends, grid.now) - grid.origin
    hour, end = np.minimum(begin.astype(np.intp), grid.hours - 1), grid.expire - grid.origin
    share = np.minimum(np.maximum(np.minimum(end, hour + 1) - begin, 0.0), 1.0)
    rows = np.arange(len(sends))
    at_begin = kept[rows, hour] * np.where(sends < grid.now, share, share / (1 - late))
    kept[:, -1] *= min(max(end - (grid.hours - 1), 0.0), 1.0)
    kept[rows, hour] = at_begin
    found: FloatArray = kept
    return found


def _corrected(click: FloatArray, factor: FloatArray) -> FloatArray:
    """Return P(click | noticed) times the channel's factor, at most the greater of 0.98 and what it was; shape (n, Z, G)."""
    likely: FloatArray = np.minimum(click * factor[:, None, None], np.maximum(click, _MOST_CLICK))
    return likely


def _log_relevance(context: Context, hours: FloatArray) -> FloatArray:
    """Return the log of the relevance left at hours since 1970."""
    half_life = context.message.relevance_half_life_seconds
    if half_life is None:
        return np.zeros(len(hours))
    return log_relevance(hours - context.message.earliest_time.timestamp() / 3600, half_life / 3600)


def _logistic(x: FloatArray) -> FloatArray:
    found: FloatArray = 1 / (1 + np.exp(np.minimum(np.maximum(-x, -40.0), 40.0)))
    return found


def made_before(context: Context) -> tuple[Made, ...]:
    """Return the sends of this message that were made, as contacts tell, but for those whose delivery is overdue."""
    return tuple(
        Made(
            channel=c.channel,
            send_hours=c.start.timestamp() / 3600,
            noticed_hours=None if c.seen_time is None else c.seen_time.timestamp() / 3600,
            is_clicked=c.click_time is not None,
        )
        for c in context.customer.contacts
        if c.decision_id == context.decision_id and c.channel not in context.overdue
    )


def sends_of(actions: Sequence[Action]) -> tuple[tuple[str, float], ...]:
    """Return the sends among actions as (channel, hours since 1970)."""
    return Actions.of(actions).timed


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
    lags: "PlainLags | None" = None,
) -> Curves:
    """Return curves of sends of which only the uplift is known; arrays have shape (m,).

    Reactions come with an exponential lag of half the channel's usual wait; interest spreads as in the module's formula, with sigma 1. `lags` are
    those of the sends and their waits where they are at hand.
    """
    how = plain_lags(context, sends, wait_hours) if lags is None else lags
    return curves_of_click(how, plain_click(uplift), uplift, p_unsubscribe, margin_micros, harm_micros)


def plain_click(uplift: FloatArray) -> FloatArray:
    """Return P(click) by node of sends of which only the uplift is known, of any number of customers; shapes (..., m) to (..., m, Z)."""
    spread = math.sqrt(1 + 0.346 * _PLAIN_INTEREST**2)
    chance = np.minimum(np.maximum(uplift, 1e-9), 0.98)
    q = _logistic(spread * np.log(chance / (1 - chance))[..., None] + _PLAIN_INTEREST * NODES)
    q = q * (chance / (q @ NODE_WEIGHTS))[..., None]
    found: FloatArray = np.where((uplift > 0)[..., None], np.minimum(q, 1.0), 0.0)
    return found


def curves_of_click(
    how: "PlainLags",
    q: FloatArray,
    uplift: FloatArray,
    p_unsubscribe: FloatArray,
    margin_micros: float,
    harm_micros: float,
) -> Curves:
    """Return plain curves by the P(click) of one customer, shape (m, Z)."""
    worth, before = _plain_reactions(how.lags, how.row, q, uplift, p_unsubscribe, margin_micros, harm_micros)
    cells = len(how.begin)
    return Curves(
        channel=how.channel,
        start=how.start,
        worth=worth,
        before=before,
        weights=NODE_WEIGHTS,
        pending_worth=np.zeros((len(NODES), cells)),
        pending_before=np.ones((len(NODES), cells)),
        uplift=uplift,
        p_unsubscribe=p_unsubscribe,
        p_notice=np.ones(len(uplift)),
        p_click=np.maximum(uplift, 0.0),
        p_organic=0.0,
        begin=how.begin,
        shapes=_shapes(how, q, uplift, p_unsubscribe, margin_micros, harm_micros),
    )


def _shapes(
    how: "PlainLags", q: FloatArray, uplift: FloatArray, p_unsubscribe: FloatArray, margin: float, harm: float
) -> Shapes:
    """Return what `plain_by_numpy` comes to, up to rounding, by the sends' lags."""
    left = p_unsubscribe[:, None] * (1 - q)
    exact = np.where((uplift > 0)[:, None], q, np.minimum(uplift, 0.0)[:, None])
    return Shapes(
        lags=how.lags,
        row=how.row,
        kind=how.kind,
        kinds=how.kinds,
        reacts=q + left,
        gains=NODE_WEIGHTS * (exact * margin - harm * left),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLags:
    """When sends begin, and how their reactions come: what customers with the same slots have in common."""

    channel: tuple[str, ...]
    begin: IntArray
    """As `Curves.begin`."""
    start: IntArray
    """As `Curves.start`."""
    lags: FloatArray
    """Shares of the reactions by cell, one row for sends that begin and wait alike."""
    row: IntArray
    """Which of the rows is each send's, shape (m,)."""
    kind: IntArray
    """Of each row the number of its wait, from 0."""
    kinds: int
    number: IntArray
    """Of each send that of its channel, from 0."""
    channels: int

    def ready(self, wait_hours: int) -> IntArray:
        """Return the first cell that begins so many hours after that of each send; see `Curves.ready`."""
        return np.searchsorted(self.begin, self.begin[self.start] + wait_hours)


def plain_lags(context: Context, sends: Sequence[tuple[str, float]], wait_hours: FloatArray) -> PlainLags:
    """Return when sends begin and how their reactions come; `wait_hours`, shape (m,), is how long each is waited for."""
    hours = [hour for _, hour in sends]
    grid = _Grid.of(context.decide_time, context.message.expire_time, hours, ())
    start = grid.cells_of(hours)
    lags, row, kind = _plain_lags(grid.hours, tuple(start.tolist()), tuple(wait_hours.tolist()))
    channel = tuple(name for name, _ in sends)
    places = {name: place for place, name in enumerate(dict.fromkeys(channel))}
    return PlainLags(
        channel=channel,
        number=np.array([places[name] for name in channel], dtype=np.intp),
        channels=len(places),
        begin=grid.begin,
        start=start,
        lags=lags,
        row=row,
        kind=kind,
        kinds=int(kind.max(initial=-1)) + 1,
    )


@lru_cache(maxsize=64)
def _plain_lags(
    hours: int, start: tuple[int, ...], wait_hours: tuple[float, ...]
) -> tuple[FloatArray, IntArray, IntArray]:
    """Return shares of the reactions by cell, one row for sends that begin and wait alike, the row of each send, shape (m,), and of each row the number of its wait.

    Customers of a campaign have the same slots, so it is asked the same again and again. Nobody writes these arrays; they are not marked as such, since a kernel is
    told where an array lies at a third of the cost where it can be written.
    """
    place: dict[tuple[int, float], int] = {}
    row = np.array([place.setdefault(pair, len(place)) for pair in zip(start, wait_hours, strict=True)], dtype=np.intp)
    begin = cell_begins(hours)
    age = begin - begin[[cell for cell, _ in place]][:, None]
    waits = np.maximum([wait for _, wait in place], 0.5)
    lags = np.where(age >= 0, np.exp(-np.maximum(age, 0) * 2 / waits[:, None]), 0.0)
    lags *= np.diff(begin, append=hours)
    lags = lags / lags.sum(axis=1, keepdims=True)
    number = {wait: place for place, wait in enumerate(dict.fromkeys(wait for _, wait in place))}
    kind = np.array([number[wait] for _, wait in place], dtype=np.intp)
    return lags, row, kind


def _plain_reactions(
    lags: FloatArray,
    row: IntArray,
    click: FloatArray,
    uplift: FloatArray,
    p_unsubscribe: FloatArray,
    margin: float,
    harm: float,
) -> tuple[FloatArray, FloatArray]:
    """Return worth in a cell and P(no reaction before it), both of shape (m, Z, G), of sends clicked with P(click), shape (m, Z)."""
    library = _kernel()
    if library is None:
        return plain_by_numpy(lags[row], click, uplift, p_unsubscribe, margin, harm)
    m, nodes = click.shape
    worth, before = np.empty((2, m, nodes, lags.shape[1]))
    told = (row, lags, click, uplift, p_unsubscribe, NODE_WEIGHTS)
    results = map(compiled.address, (worth, before))
    library.plain(m, nodes, lags.shape[1], *map(compiled.address, told), margin, harm, *results)
    return worth, before


def plain_by_numpy(
    lag: FloatArray, q: FloatArray, uplift: FloatArray, p_unsubscribe: FloatArray, margin: float, harm: float
) -> tuple[FloatArray, FloatArray]:
    """Do what curves.c does; the reference, and what serves where that was not compiled. `lag` is of shape (m, G)."""
    click = q[:, :, None] * lag[:, None, :]
    left = p_unsubscribe[:, None, None] * lag[:, None, :] * (1 - q)[:, :, None]
    reacted = np.minimum(np.cumsum(click + left, axis=2), 1.0)
    before = np.ones_like(reacted)
    before[:, :, 1:] = 1 - reacted[:, :, :-1]
    exact = np.where((uplift > 0)[:, None, None], click, lag[:, None, :] * np.minimum(uplift, 0.0)[:, None, None])
    return NODE_WEIGHTS[None, :, None] * (exact * margin - harm * left), before
