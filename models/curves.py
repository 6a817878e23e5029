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

import contextlib
import ctypes
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, lru_cache
from itertools import compress
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models import compiled
from models.booster import Booster
from models.context import Context
from models.correction import GROUP_EDGES, ORDER_HOURS, Forecast
from models.features import Column, Encoder
from models.rhythm import WEEK, Rhythms, RhythmTypes, count_weeks, hours_of_week
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
_FIRST_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()
_MOST_ROOMS, _MOST_ROOM = 2, 500_000
"""Rooms that are kept while nobody has them, and numbers in one of them."""
_FORMAT = 2
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


@lru_cache(maxsize=1024)
def _cell_ends(hours: int) -> IntArray:
    """Return the last hour of each cell, in hours after the first."""
    found: IntArray = np.append(cell_begins(hours)[1:], hours) - 1
    return found


@lru_cache(maxsize=1024)
def _cell_of_hour(hours: int) -> IntArray:
    """Return the cell that holds each hour, shape (hours,)."""
    return np.searchsorted(cell_begins(hours), np.arange(hours), side="right") - 1


@lru_cache(maxsize=1024)
def _ready_cells(hours: int, wait_hours: int) -> IntArray:
    """Return the first cell that begins so many hours after each; see `Curves.ready`."""
    begin = cell_begins(hours)
    return np.searchsorted(begin, begin + wait_hours)


@lru_cache(maxsize=1024)
def _local_hours(origin: int, hours: int, time_zone: str) -> IntArray:
    """Return the hours of the local week of a grid, shape (hours,)."""
    return hours_of_week(np.arange(origin, origin + hours), time_zone)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A customer, and the sends of which curves are asked, as (channel, hours since 1970)."""

    context: Context
    sends: Sequence[tuple[str, float]]
    made: Sequence[Made] = ()
    """What was made before."""
    margin_micros: float
    actions: Actions | None = None
    """Whose sends these are: what does not hang on the customer is then worked out once for all who have the same."""


class Room:
    """Memory for the cells of curves. What is drawn in it holds until the next is: to ask the system for a megabyte each time takes longer than to draw."""

    _free: ClassVar[list["Room"]] = []

    def __init__(self) -> None:
        self._kept = np.empty(0)

    @classmethod
    @contextlib.contextmanager
    def lent(cls) -> Iterator["Room"]:
        """Lend a room that nobody else has until it is given back."""
        try:
            room = cls._free.pop()
        except IndexError:
            room = cls()
        try:
            yield room
        finally:
            if len(cls._free) < _MOST_ROOMS and len(room._kept) <= _MOST_ROOM:
                cls._free.append(room)

    def take(self, sends: int, nodes: int, cells: int) -> FloatArray:
        """Return two arrays of shape (sends, nodes, cells) in one."""
        size = 2 * sends * nodes * cells
        if len(self._kept) < size:
            self._kept = np.empty(size)
        return self._kept[:size].reshape(2, sends, nodes, cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Curves of m sends but for their cells, which are hundreds of kilobytes and drawn where they are looked at; fields as those of `Curves`."""

    start: IntArray
    weights: FloatArray
    pending_worth: FloatArray
    pending_before: FloatArray
    uplift: FloatArray
    p_unsubscribe: FloatArray
    p_notice: FloatArray
    p_click: FloatArray
    p_organic: float
    row: IntArray
    forecasts: "Forecasts"

    @property
    def channel(self) -> tuple[str, ...]:
        """Channel of each send."""
        names = self.forecasts.frame.names
        return names if len(self.row) == len(names) else tuple(map(names.__getitem__, self.row.tolist()))

    def ready(self, wait_hours: int) -> IntArray:
        """Return the first cell that begins so many hours after that of each send; see `Curves.ready`."""
        return _ready_cells(self.forecasts.frame.grid.hours, wait_hours)[self.start]

    def keep(self, mask: NDArray[np.bool_]) -> "Sketch":
        """Return the sketch of the sends for which the mask, shape (m,), is true."""
        return Sketch(
            start=self.start[mask],
            weights=self.weights,
            pending_worth=self.pending_worth,
            pending_before=self.pending_before,
            uplift=self.uplift[mask],
            p_unsubscribe=self.p_unsubscribe[mask],
            p_notice=self.p_notice[mask],
            p_click=self.p_click[mask],
            p_organic=self.p_organic,
            row=self.row[mask],
            forecasts=self.forecasts,
        )

    def drawn(self, room: Room | None = None) -> Curves:
        """Return the curves, drawn in this room, or in one of their own."""
        worth, before = self.forecasts.drawn(self.row, room or Room())
        return Curves(
            channel=self.channel,
            start=self.start,
            worth=worth,
            before=before,
            weights=self.weights,
            pending_worth=self.pending_worth,
            pending_before=self.pending_before,
            uplift=self.uplift,
            p_unsubscribe=self.p_unsubscribe,
            p_notice=self.p_notice,
            p_click=self.p_click,
            p_organic=self.p_organic,
            begin=self.forecasts.frame.grid.begin,
            row=self.row,
            forecasts=self.forecasts,
        )


class FunnelModel:
    """The funnel, ready to draw curves."""

    def __init__(self, description: FunnelDescription, boosters: Mapping[str, Booster]) -> None:
        _check_parts(description)
        self.description = description
        self.boosters = dict(boosters)
        self._encoder = Encoder(description.columns)
        self._design = Design(description.columns, description.scaling)
        self._rhythms = Rhythms(description.rhythm)
        self._log_usual = np.log(self._rhythms.of(np.zeros(WEEK)))
        """The rhythm of a customer of whom nothing is known."""
        self._weights = {name: np.array(stage.weights) for name, stage in description.stages.items()}
        self._tables = _Tables.of(description, self._design)
        self._is_steady = not (self._tables.click_decay.any() or self._tables.order_decay.any())
        """Whether relevance says nothing."""
        carried = description.order_interest * description.interest_deviation
        self._buying = np.exp(carried * NODES) if carried else None
        """By how much more who is interested buys after a click, by node; None: interest does not carry over to orders."""

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
        """Return the curves of sends, as (channel, hours since 1970), given what was made before; see `sketch_each`."""
        asked = Asked(context=context, sends=sends, made=made, margin_micros=margin_micros, actions=actions)
        (found,) = self.sketch_each([asked], harm_micros)
        return found.drawn()

    def sketch_each(self, asked: Sequence[Asked], harm_micros: float) -> list[Sketch]:
        """Return the sketches of several customers' curves.

        The contexts' factors multiply what the stages say. A send made before that is not known to have failed has been delivered. Customers lie one below
        the other, a row for each channel and for each send, so that numbers of both may differ; those of one block have the same number of hours.
        """
        frames = [self._frame_of(one) for one in asked]
        order = sorted(range(len(asked)), key=lambda place: frames[place].grid.hours)
        asked, frames = [asked[place] for place in order], [frames[place] for place in order]
        stages, organic = self._stages([one.context for one in asked], frames)
        found: list[Sketch] = []
        row = 0
        for some in _blocks(frames):
            rows = sum(len(frame.rows) for frame in frames[some])
            mine = stages.part(row, row + rows)
            found += self._sketch_block(asked[some], frames[some], mine, organic[some], harm_micros)
            row += rows
        places = dict(zip(order, found, strict=True))
        return [places[place] for place in range(len(found))]

    def _sketch_block(
        self,
        asked: Sequence[Asked],
        frames: Sequence["_Frame"],
        stages: "_Stages",
        organic: FloatArray,
        harm_micros: float,
    ) -> list[Sketch]:
        """Return the sketches of k customers in cells of the same hours, with their rows of the stages and, shape (k,), P(order) without a send."""
        counts = [len(frame.rows) for frame in frames]
        first_row, first_send = _firsts(counts), _firsts([len(frame.of) for frame in frames])
        owner = np.repeat(np.arange(len(asked)), counts)
        contexts = [one.context for one in asked]
        rate = stages.attention[:, None] * self._by_hour(contexts, stages.rows, frames, owner)
        click, order = self._click_and_order(contexts, stages, frames, owner)
        weights, weights_alone = self._weights_of_interest(asked, stages, frames)
        told = _Told(
            stages=stages,
            click=click,
            order=order,
            usual=self._usual(click),
            buying=np.ones(len(NODES)) if self._buying is None else self._buying,
            margin=np.array([one.margin_micros for one in asked], dtype=np.float64)[owner],
            harm=float(harm_micros),
            weights=weights[owner],
        )
        react = _reactions(told)
        delivered = np.minimum(stages.delivered * stages.deliver_factor, 1.0)
        kept, place = _rows_of(frames)
        of = np.concatenate([frame.of + first for frame, first in zip(frames, first_row, strict=True)])
        ends = _cell_ends(frames[0].grid.hours)
        noticed, sums = _notices(_exponents(ends, kept, place, rate, stages.notice_factor, of), react, of, delivered)
        p_notice = noticed.sum(axis=1)
        block = _Block(rate=rate, told=told, react=react, noticed=noticed, of=of)
        found = []
        for i, (one, frame) in enumerate(zip(asked, frames, strict=True)):
            begin, end = first_send[i], first_send[i] + len(frame.of)
            pending_worth, pending_before = self._pending(one.made, frame, block, first_row[i], delivered)
            found.append(
                Sketch(
                    start=frame.start,
                    weights=weights[i],
                    pending_worth=pending_worth,
                    pending_before=pending_before,
                    uplift=sums[1, begin:end],
                    p_unsubscribe=sums[2, begin:end],
                    p_notice=p_notice[begin:end],
                    p_click=sums[0, begin:end],
                    p_organic=float(organic[i]),
                    row=frame.all,
                    forecasts=Forecasts(
                        frame=frame,
                        block=block,
                        first_row=first_row[i],
                        first_send=begin,
                        weights=weights_alone[i],
                        window_hours=self.description.window_hours,
                    ),
                )
            )
        return found

    def _pending(
        self, made: Sequence[Made], frame: "_Frame", block: "_Block", first_row: int, delivered: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return worth and P(no reaction) of what was made before, together, from now on, shapes (Z, G)."""
        grid, react = frame.grid, block.react
        worth, before = np.zeros(react.worth.shape[1:]), np.ones(react.worth.shape[1:])
        for m in made:
            if m.noticed_hours is not None:
                continue
            i = np.array([frame.place[m.channel]])
            kept = _kept(grid, np.array([m.send_hours]), i, self._tables.keep[frame.rows])
            here, first = i + first_row, np.zeros(1, dtype=np.intp)
            exponents = _exponents(
                _cell_ends(grid.hours), kept, first, block.rate, block.told.stages.notice_factor, here
            )
            arrived = np.ones(len(delivered)) if m.send_hours <= grid.now else delivered
            noticed, _ = _notices(exponents, react, here, arrived)
            one_worth, one_before = react.drawn(noticed, first, here, Room())
            worth = worth * one_before[0] + one_worth[0] * before
            before = before * one_before[0]
        return worth, before

    def _frame_of(self, asked: Asked) -> "_Frame":
        now, expire = asked.context.decide_time, asked.context.message.expire_time
        if asked.actions is None or asked.made:
            return self._frame(now, expire, asked.sends, asked.made)
        return asked.actions.once((self, now, expire), lambda: self._frame(now, expire, asked.sends, asked.made))

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
            all=np.arange(len(names)),
            rows=rows,
            grid=grid,
            kept=_kept(grid, hours, of, self._tables.keep[rows]),
            start=grid.cells_of(send_hours),
        )

    def _stages(self, contexts: Sequence[Context], frames: Sequence["_Frame"]) -> tuple["_Stages", FloatArray]:
        """Return what the stages say of each channel of each customer, and P(order) without a send by customer."""
        matrix = self._encoder.encode_channels(contexts, [tuple(frame.place) for frame in frames])
        counts = [len(frame.rows) for frame in frames]
        every = np.concatenate([*(frame.rows for frame in frames), np.full(len(frames), -1)])
        rows = every[: -len(frames)]
        linear = np.einsum("nf,fsn->sn", self._design.base(matrix), self._tables.weights[:, :, every])
        of_channels, of_contexts = slice(len(rows)), slice(len(rows), None)
        notice, click, order, organic, leave = (
            linear[i, mine] + self._trees(stage, matrix[mine])
            for i, stage in enumerate(STAGES)
            for mine in (of_contexts if stage == "organic" else of_channels,)
        )
        alike = np.ones(len(rows))

        def factor(stage: str) -> FloatArray:
            if not any(stage in context.factors for context in contexts):
                return alike
            known = [context.factors.get(stage, {}) for context in contexts]
            return np.array(
                [
                    of_one[c].value if c in of_one else 1.0
                    for of_one, frame in zip(known, frames, strict=True)
                    for c in frame.place
                ]
            )

        p_organic = _logistic(organic)
        stages = _Stages(
            rows=rows,
            delivered=self._tables.delivered[rows],
            deliver_factor=factor("deliver"),
            attention=np.exp(np.minimum(notice, 20.0)),
            notice_factor=factor("notice"),
            click=click,
            click_factor=factor("click"),
            order=order + self.description.stages["order"].organic * np.repeat(organic, counts),
            gain_factor=self.description.scale * factor("order"),
            leave=_logistic(leave),
            leave_factor=factor("unsubscribe"),
            organic=np.repeat(p_organic, counts),
        )
        return stages, p_organic

    def _weights_of_interest(
        self, asked: Sequence[Asked], stages: "_Stages", frames: Sequence["_Frame"]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights of the nodes given what came of the sends that were noticed, with factors and by the bundle alone, shape (k, Z)."""
        weights = np.tile(_FIRST_WEIGHTS, (len(asked), 1))
        if not any(one.made for one in asked):
            return weights, weights
        weights_alone = weights.copy()
        row = 0
        for i, (one, frame) in enumerate(zip(asked, frames, strict=True)):
            end = row + len(frame.rows)
            if any(m.noticed_hours is not None for m in one.made):
                weights[i], weights_alone[i] = self._weights_given(one, stages.part(row, end), frame.place)
            row = end
        return weights, weights_alone

    def _weights_given(
        self, asked: Asked, stages: "_Stages", place: Mapping[str, int]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the same of one customer, shape (Z,)."""
        weights = weights_alone = NODE_WEIGHTS
        for m in asked.made:
            if m.noticed_hours is not None:
                relevance = _log_relevance(asked.context, np.array([m.noticed_hours]))
                alone = self._click(self._scores(stages, relevance)[0])
                q, q_alone = (
                    np.clip(x[place[m.channel], :, 0], _LEAST_DOUBT, 1 - _LEAST_DOUBT)
                    for x in (_corrected(alone, stages.click_factor), alone)
                )
                weights = weights * (q if m.is_clicked else 1 - q)
                weights_alone = weights_alone * (q_alone if m.is_clicked else 1 - q_alone)
        return weights / weights.sum(), weights_alone / weights_alone.sum()

    def _by_hour(
        self, contexts: Sequence[Context], rows: IntArray, frames: Sequence["_Frame"], owner: IntArray
    ) -> FloatArray:
        """Return by what the hazard of channels is multiplied in each hour of their customers' grids, shape (n, H)."""
        zones = [context.customer.time_zone for context in contexts]
        grids = [frame.grid for frame in frames]
        weeks = [_local_hours(g.origin, g.hours, where) for g, where in zip(grids, zones, strict=True)]
        rhythm = self._log_rhythms([context.customer.active_hours for context in contexts], zones)
        week = weeks[0] if all(it is weeks[0] for it in weeks) else np.array(weeks)
        if week.ndim == 1:
            by_customer, log_week = rhythm[:, week], self._tables.log_week[rows[:, None], week]
        else:
            by_customer = rhythm[np.arange(len(weeks))[:, None], week]
            log_week = self._tables.log_week[rows[:, None], week[owner]]
        log_week += self._tables.power[rows, None] * (by_customer if len(weeks) == 1 else by_customer[owner])
        found: FloatArray = np.exp(log_week, out=log_week)
        return found

    def _log_rhythms(self, active: Sequence[Sequence[int]], zones: Sequence[str]) -> FloatArray:
        """Return the logs of customers' rhythms, shape (k, 168)."""
        known = [place for place, hours in enumerate(active) if len(hours)]
        if not known:
            return np.repeat(self._log_usual[None], len(active), axis=0)
        counts = count_weeks([active[place] for place in known], [zones[place] for place in known])
        log_rhythms = np.log(self._rhythms.of(counts[:, None])[:, 0])
        if len(known) == len(active):
            return log_rhythms
        found = np.repeat(self._log_usual[None], len(active), axis=0)
        found[known] = log_rhythms
        return found

    def _click_and_order(
        self, contexts: Sequence[Context], stages: "_Stages", frames: Sequence["_Frame"], owner: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return P(click | noticed) by channel, node and cell, without factors, shape (n, Z, G), and P(order | click) by channel and cell, shape (n, G)."""
        grids = [frame.grid for frame in frames]
        relevance = np.zeros((1, 1))  # where it says nothing, all cells are alike
        if not self._is_steady and any(c.message.relevance_half_life_seconds is not None for c in contexts):
            each = [_log_relevance(context, grid.middle()) for context, grid in zip(contexts, grids, strict=True)]
            relevance = np.array(each)[owner]
        click_score, order_score = self._scores(stages, relevance)
        click, order = self._click(click_score), _logistic(order_score)
        if self.description.order_is_caused:
            organic = stages.organic[:, None]
            order = organic + (1.0 - organic) * order
        cells = len(grids[0].begin)
        shared = cells if click.shape[2] < cells else 1
        return np.repeat(click, shared, axis=2), np.repeat(order, shared, axis=1)

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

    def _usual(self, click: FloatArray) -> FloatArray | None:
        """Return the mean over the nodes of by how much who clicks buys more, by which m is divided, shape (n, G); None: m is 1."""
        if self._buying is None:
            return None
        mean = (NODE_WEIGHTS @ (click * self._buying[:, None])) / np.maximum(NODE_WEIGHTS @ click, _TINY)
        found: FloatArray = np.maximum(mean, _TINY)
        return found


def _firsts(counts: Sequence[int]) -> list[int]:
    """Return how many there are before each."""
    return [0, *itertools.accumulate(counts)][:-1]


def _blocks(frames: Sequence["_Frame"]) -> Iterator[slice]:
    """Take frames in order of their hours together while these are the same."""
    ends = [place for place, (a, b) in enumerate(itertools.pairwise(frames), 1) if a.grid.hours != b.grid.hours]
    return itertools.starmap(slice, itertools.pairwise([0, *ends, len(frames)]))


def _rows_of(frames: Sequence["_Frame"]) -> tuple[FloatArray, IntArray]:
    """Return what ages make of the hazard of noticing sends, each frame's once, and the row of each send."""
    first: dict[int, int] = {}
    tables, rows, count = [], [], 0
    for frame in frames:
        if id(frame) not in first:
            first[id(frame)] = count
            tables.append(frame.kept)
            count += len(frame.kept)
        rows.append(frame.all + first[id(frame)])
    return (tables[0] if len(tables) == 1 else np.concatenate(tables)), np.concatenate(rows)


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
    organic: FloatArray
    """P(order) without a send."""

    def part(self, begin: int, end: int) -> "_Stages":
        """Return what they say of these rows."""
        if end - begin == len(self.rows):
            return self
        return _Stages(**{name: getattr(self, name)[begin:end] for name in _Stages.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What reactions hang on: n channels, by node and cell."""

    stages: _Stages
    click: FloatArray
    """P(click | noticed) without factors, shape (n, Z, G)."""
    order: FloatArray
    """P(order | click), caused or not, of who is as interested as those who click, shape (n, G)."""
    usual: FloatArray | None
    """m is `buying` by this, shape (n, G); None: it is 1."""
    buying: FloatArray
    """Shape (Z,)."""
    margin: FloatArray
    """Micros, shape (n,)."""
    harm: float
    weights: FloatArray
    """Of the nodes, shape (n, Z)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reactions:
    """What follows once a message of a channel is noticed in a cell."""

    worth: FloatArray
    """Expected micros, times the weight of the node, shape (n, Z, G)."""
    reacts: FloatArray
    """P(click or unsubscribe), shape (n, Z, G)."""
    chances: FloatArray
    """P(click), P(order caused) and P(unsubscribe) over the nodes, shape (3, n, G)."""

    def drawn(self, noticed: FloatArray, place: IntArray, of: IntArray, room: Room) -> FloatArray:
        """Return worth in a cell and P(no reaction before it), shape (2, m, Z, G), of sends of these channels, noticed with rows of (M, G)."""
        nodes, cells = self.reacts.shape[1:]
        found = room.take(len(of), nodes, cells)
        library = _kernel()
        if library is None:
            _drawn_by_numpy(self, noticed[place], of, found)
        else:
            where = map(compiled.address, (noticed, place, of, self.worth, self.reacts, found))
            library.drawn(len(of), nodes, cells, *where)
        return found


def _drawn_by_numpy(react: _Reactions, noticed: FloatArray, of: IntArray, found: FloatArray) -> None:
    """Do what curves.c does; the reference, as the next three, and what serves where that was not compiled."""
    worth, before = found
    here = noticed[:, None, :]
    np.multiply(react.worth[of], here, out=worth)
    before[:, :, 0] = 1.0
    np.cumsum((react.reacts[of] * here)[:, :, :-1], axis=2, out=before[:, :, 1:])
    np.subtract(1.0, before[:, :, 1:], out=before[:, :, 1:])


def _reactions(told: _Told) -> _Reactions:
    """Return what follows once a message is noticed, by channel and cell."""
    library = _kernel()
    n, nodes, cells = told.click.shape
    found = np.empty((5, n, nodes, cells))
    if library is None:
        _reactions_by_numpy(told, found)
    else:
        stages = told.stages
        leave = np.minimum(stages.leave * stages.leave_factor, 1.0)
        numbers = (told.buying, stages.click_factor, stages.gain_factor, stages.organic, leave, told.margin)
        library.reactions(
            *(n, nodes, cells, compiled.address(told.click), compiled.address(told.order)),
            None if told.usual is None else compiled.address(told.usual),
            *map(compiled.address, numbers),
            *(told.harm, _MOST_CLICK, compiled.address(told.weights), compiled.address(found)),
        )
    chances: FloatArray = (told.weights[:, None, :] @ found[:3])[:, :, 0]
    return _Reactions(worth=found[3], reacts=found[4], chances=chances)


def _reactions_by_numpy(told: _Told, found: FloatArray) -> None:
    """Fill in P(click), P(order caused), P(unsubscribe), worth and P(reaction), each of shape (n, Z, G)."""
    stages, organic = told.stages, told.stages.organic[:, None]
    q = _corrected(told.click, stages.click_factor)
    gain = (stages.gain_factor[:, None] * np.maximum(told.order - organic, 0.0))[:, None, :]
    if told.usual is not None:
        gain = gain * (told.buying[:, None] / told.usual[:, None, :])
    gain = np.minimum(gain, 1.0 - organic[:, None])
    left = (1 - q) * np.minimum(stages.leave * stages.leave_factor, 1.0)[:, None, None]
    found[0], found[1], found[2] = q, q * gain, left
    found[3] = told.weights[:, :, None] * (q * (told.margin[:, None, None] * gain) - told.harm * left)
    found[4] = q + left


def _exponents(
    ends: IntArray, kept: FloatArray, place: IntArray, rate: FloatArray, factor: FloatArray, of: IntArray
) -> FloatArray:
    """Return less the hazard of noticing up to the end of each cell, shape (m, G).

    Parameters
    ----------
    ends : the last hour of each cell, shape (G,).
    kept : what `_kept` says of sends, shape (M, H), and `place` which row is each send's, shape (m,).
    rate : all the rest of the hazard but for the factors, shape (n, H), and `of` which row is each send's.
    factor : shape (n,).
    """
    library = _kernel()
    if library is None:
        return _exponents_by_numpy(ends, kept, place, rate, factor, of)
    found = np.empty((len(of), len(ends)))
    where = map(compiled.address, (ends, kept, place, rate, factor, of, found))
    library.exponents(len(of), rate.shape[1], len(ends), *where)
    return found


def _exponents_by_numpy(
    ends: IntArray, kept: FloatArray, place: IntArray, rate: FloatArray, factor: FloatArray, of: IntArray
) -> FloatArray:
    hazard = factor[:, None] * rate
    total = (kept[place] * hazard[of]).cumsum(axis=1)
    return np.ascontiguousarray(-total[:, ends])


def _notices(
    exponents: FloatArray, react: _Reactions, of: IntArray, delivered: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return P(noticed in a cell), shape (m, G), and P(click), P(order caused) and P(unsubscribe), shape (3, m); the exponents are written over."""
    noticed = np.exp(exponents, out=exponents)
    library = _kernel()
    if library is None:
        return noticed, _notices_by_numpy(noticed, react, of, delivered)
    sums = np.empty((3, len(of)))
    where = map(compiled.address, (delivered, of, react.chances, noticed, sums))
    library.notices(len(of), len(delivered), noticed.shape[1], *where)
    return noticed, sums


def _notices_by_numpy(noticed: FloatArray, react: _Reactions, of: IntArray, delivered: FloatArray) -> FloatArray:
    by_then = 1.0 - noticed
    noticed[:, 0], noticed[:, 1:] = by_then[:, 0], by_then[:, 1:] - by_then[:, :-1]
    noticed *= delivered[of, None]
    products = noticed * react.chances[:, of]
    even, odd = _order_of_sums(noticed.shape[1])
    found: FloatArray = products[:, :, even].cumsum(axis=2)[:, :, -1]
    if len(odd):
        found = found + products[:, :, odd].cumsum(axis=2)[:, :, -1]
    return found


def _order_of_sums(cells: int) -> tuple[list[int], list[int]]:
    """Return in which order cells are added up, even and odd ones apart: of each eight the last pair first, as numpy's einsum does on x86-64."""
    full = cells // 8 * 8
    pairs = [*(first + pair for first in range(0, full, 8) for pair in (6, 4, 2, 0)), *range(full, cells, 2)]
    return pairs, [pair + 1 for pair in pairs if pair + 1 < cells]


@cache
def _kernel() -> Any:
    """Return curves.c's library, None where it was not compiled."""
    library = compiled.load("curves", _FORMAT)
    if library is not None:
        size, where, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
        library.reactions.argtypes = (*[size] * 3, *[where] * 9, *[number] * 2, *[where] * 2)
        library.exponents.argtypes = (*[size] * 3, *[where] * 7)
        library.notices.argtypes = (*[size] * 3, *[where] * 5)
        library.drawn.argtypes = (*[size] * 3, *[where] * 6)
        library.plain.argtypes = (*[size] * 3, *[where] * 6, *[number] * 2, *[where] * 2)
        for kernel in (library.reactions, library.exponents, library.notices, library.drawn, library.plain):
            kernel.restype = None
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
    all: IntArray
    """Place of each send, shape (m,)."""
    rows: IntArray
    """Of the tables, shape (n,)."""
    grid: _Grid
    kept: FloatArray
    """See `_kept`, shape (m, H)."""
    start: IntArray
    """Cell of each send, shape (m,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What curves of customers are drawn from, one below the other: n channels, M sends."""

    rate: FloatArray
    """Of noticing without factors and but for the age, by hour of the grid, shape (n, H)."""
    told: _Told
    react: _Reactions
    noticed: FloatArray
    """P(noticed in a cell), shape (M, G)."""
    of: IntArray
    """Row of each send's channel, shape (M,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What the bundle alone, without factors, says of a customer's m sends: the trials by which it is corrected later."""

    frame: _Frame
    block: _Block
    first_row: int
    """Of the customer's rows of channels."""
    first_send: int
    """Of the customer's rows of sends."""
    weights: FloatArray
    """Of the nodes, given what was made before, shape (Z,)."""
    window_hours: float

    def drawn(self, rows: IntArray, room: Room) -> FloatArray:
        """Return the cells of these sends; see `_Reactions.drawn`."""
        place = rows + self.first_send
        return self.block.react.drawn(self.block.noticed, place, self.block.of[place], room)

    def of_send(self, row: int) -> Forecast:
        """Return the forecast of one send."""
        frame, grid, channel = self.frame, self.frame.grid, self.first_row + int(self.frame.of[row])
        hour = math.floor(frame.hours[row])
        begins, end = _groups(hour - grid.origin, grid.hours)
        found = np.zeros((3, len(begins)))
        if begins:
            by_hour = self._by_hour(channel, end)
            rate = np.multiply(frame.kept[row, :end], self.block.rate[channel, :end], out=by_hour[0])
            found[0] = np.add.reduceat(rate, begins)
            if not found[0].all():  # where nobody would notice it, hours count alike
                rate[begins[0] :][np.repeat(found[0] == 0, np.diff([*begins, end]))] = 1.0
            by_hour[1:] *= rate
            of_all, click, order = np.add.reduceat(by_hour, begins, axis=1)
            found[1], found[2] = click / of_all, order / of_all
        notice, clicked, ordered = np.round(found, 6).tolist()
        return Forecast(
            send_hour=hour,
            deliver=round(float(self.block.told.stages.delivered[channel]), 6),
            notice=tuple(notice),
            click=tuple(clicked),
            order=tuple(ordered),
            unsubscribe=round(float(self.block.told.stages.leave[channel]), 6),
            order_until=math.floor(grid.now + self.window_hours),
        )

    def _by_hour(self, channel: int, end: int) -> FloatArray:
        """Return room for a row, and P(click | noticed) and P(order | click) of a row of channels in each hour, at these weights and without factors and scale, shape (3, end)."""
        told, weights = self.block.told, self.weights
        click, order = told.click[channel], told.order[channel]
        clicked = weights @ click
        if told.usual is not None:
            tilt = told.buying[:, None] / told.usual[channel]
            among = (weights @ (click * tilt)) / np.maximum(clicked, _TINY)
            order = np.minimum(order + (among - 1) * np.maximum(order - told.stages.organic[channel], 0.0), 1.0)
        found = np.empty((3, end))
        hours = self.frame.grid.hours
        found[1], found[2] = (x[:end] if len(x) == hours else x[_cell_of_hour(hours)[:end]] for x in (clicked, order))
        return found


@lru_cache(maxsize=1024)
def _groups(first: int, hours: int) -> tuple[tuple[int, ...], int]:
    """Return where groups of hours begin in a grid, of a send made in its hour `first`, and where the last of them ends."""
    edges = [min(max(first + edge, 0), hours) for edge in (0, *GROUP_EDGES)]
    count = next((place for place, (a, b) in enumerate(itertools.pairwise(edges)) if b <= a), len(GROUP_EDGES))
    return tuple(edges[:count]), edges[count]


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
