"""Fitting the funnel of models.curves: a rare order learned from the denser things that lead to it.

Each stage is learned where its data are dense: notice from all sends that arrived, click from those noticed, order from those clicked, organic
orders from decisions whose message did not work (no send, or never clicked; never noticed, where clicks are too few to tell). Orders after a click hold those that would have come
anyway, so that the stage order is fitted beside what the stage organic says of them: P(order | click) = organic + (1 - organic) logistic(order). Decisions whose
window of orders is still open teach what is known of them early: notice, for as long as they were watched, click and unsubscribing where there
has been time for it, and nothing of orders. Who clicks orders more anyway, so the
product alone claims too much or too little; `scale` makes the mean effect of what was sent fit the difference that randomisation shows,
drawn towards 1 where that difference is uncertain:

    scale = (m d / s^2 + 1 / t^2) / (m^2 / s^2 + 1 / t^2)

with d the observed difference of order rates, s its standard error, m the mean of the modelled effects, t = 0.2. Decisions without a send
are weighted by (1 - p) / p, p their propensity, so that both sides hold the same contexts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.correction import ORDER_HOURS, SETTLE_HOURS
from models.curves import STAGES, ChannelLag, FunnelDescription, StageWeights, log_relevance
from models.features import BUILT_IN, NO_SEND, Column, is_of_context
from models.rhythm import Rhythms
from models.stage import Design, Scaling
from training.boosting import LOCAL, Engine, Rows
from training.dataset import Dataset
from training.grow import Hyperparameters, parameters
from training.lag import Cells, blocks, exposures_of, fit_lag, hazards, noticed_by_cell, noticed_in_time, thin, unroll
from training.linear import LinearFit, Link, find_scaling, fit_linear, loss, losses
from training.rhythm import fit_rhythms

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_LEAST_NOTICED = 200
_LEAST_EVENTS, _LEAST_EARLIER = 10, 5
"""Of a stage that is fitted. Its weights are shrunk, so that a few events say little, and more than the mean rate of all does."""
_LEAST_SENDS = 100
"""Sends of a channel from which its own lag is learned."""
_ROUNDS = 2
_PRIOR_DEVIATION = 0.2
_MOST_SCALE = 3.0
_CLEARLY = 2.0
"""Standard errors by which trees must lower the loss on the later part, which has chosen their number and so flatters them."""
_CERTAIN = 12.0
_PRIOR_SENDS = 50.0
_MOST_ANYWAY = 1 - 1e-9
"""Chance of an order anyway beside which what a click adds can still be told."""
_FEW_EVENTS = 300
"""Refusals fewer than this are explained by message and contacts alone."""
_OF_REFUSALS = frozenset(
    {
        "channel",
        "message_kind",
        "category",
        "journey_stage",
        "step",
        "contacts_1d",
        "contacts_7d",
        "contacts_30d",
        "channel_contacts_30d",
        "hours_since_contact",
    }
)
_TIRING, _TIRED = "contacts_7d", 0.5
"""Refusals are taken to grow with this power of one more than the contacts of a week, until the log says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFunnel:
    """The funnel, the texts of its trees by stage, and P(order) of the later part by models that did not see it."""

    description: FunnelDescription
    texts: dict[str, str]
    p_later: FloatArray
    effect_later: FloatArray
    """What the same models say that the later decisions added to it; 0 where nothing was sent."""
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A fitted stage with its scores of all decisions, by the final model and by that of the earlier part."""

    weights: StageWeights
    text: str | None
    scores: FloatArray
    earlier_scores: FloatArray
    relevance: FloatArray
    """What log relevance is multiplied by, of each decision."""


def fit_funnel(
    data: Dataset,
    is_later: BoolArray,
    hyper: Hyperparameters,
    progress: Callable[[str], None],
    engine: Engine = LOCAL,
) -> FittedFunnel | None:
    """Fit a funnel; None, after saying which stage has too little, where the log cannot teach one."""
    closed = np.arange(len(data) + (0 if data.early is None else len(data.early))) < len(data)
    data = data.with_early()
    is_later = np.append(is_later, np.ones(len(data) - len(is_later), dtype=bool))
    is_send = data.channel != NO_SEND
    sent = is_send & (closed | _is_settled(data, 0.0))
    arrived = sent & (data.delivered > 0)
    noticed = arrived & (data.seen > 0) & (closed | _is_settled(data, data.seen_hours))
    if noticed.sum() < _LEAST_NOTICED:
        progress(f"no funnel: {noticed.sum()} sends were seen or clicked, {_LEAST_NOTICED} are needed")
        return None
    kept = [i for i, c in enumerate(data.columns) if not _is_of_time(c.name)]
    columns, matrix = tuple(data.columns[i] for i in kept), np.ascontiguousarray(data.matrix[:, kept])
    scaling = find_scaling(columns, matrix)
    design = Design(columns, scaling)
    fitting = _Fitting(
        data=data,
        matrix=matrix,
        design=design,
        scaling=scaling,
        is_later=is_later,
        hyper=hyper,
        progress=progress,
        engine=engine,
    )
    rhythm = fit_rhythms(data, hyper.seed)
    rhythms = Rhythms(rhythm)
    cells = unroll(data, thin(data.channel, arrived), rhythms)
    in_time = noticed_in_time(data, arrived)
    channels = [str(c) for c in np.unique(data.channel[arrived])]
    attention = np.zeros(len(data))
    lags: dict[str, ChannelLag] = {}
    for _ in range(_ROUNDS):
        lags = _fit_lags(data, cells, channels, attention)
        exposure = np.maximum(exposures_of(data, arrived, rhythms, lags), 1e-9)
        linear = fitting.linear(in_time, arrived, "log", exposure)
        attention = np.where(arrived, linear.scores, 0.0)
    notice = fitting.stage("notice", in_time, arrived, "log", exposure)
    clicked = noticed & (data.clicked > 0)
    if clicked.sum() < _LEAST_EVENTS:
        fitting.note(
            "click", f"{clicked.sum()} clicks are too few, {_LEAST_EVENTS} are needed; being noticed stands for a click"
        )
        click, order_rows = fitting.constant(_CERTAIN), noticed
    else:
        click = fitting.stage(
            "click", data.clicked, noticed, "logit", relevance=_log_relevance_left(data, data.seen_hours)
        )
        order_rows = clicked
    hours = np.where(np.isnan(data.clicked_hours), data.seen_hours, data.clicked_hours)
    organic = fitting.stage("organic", data.response, closed & ~order_rows, "logit", of_context=True)
    order = fitting.stage(
        "order",
        data.response,
        order_rows & closed,
        "logit",
        relevance=_log_relevance_left(data, hours),
        prior_slope=1.0,
        anyway=np.minimum(_logistic(organic.scores), _MOST_ANYWAY),
    )
    unsubscribe = fitting.stage("unsubscribe", data.unsubscribed, noticed & ~clicked, "logit", is_tiring=True)
    stages = dict(zip(STAGES, (notice, click, order, organic, unsubscribe), strict=True))
    description = FunnelDescription(
        columns=columns,
        scaling=scaling,
        rhythm=rhythm,
        lags=lags,
        delivered=_delivered(data, sent & (data.cancelled == 0)),
        stages={name: stage.weights for name, stage in stages.items()},
        interest_deviation=hyper.interest_deviation,
        order_interest=hyper.order_interest,
        order_is_caused=True,
        scale=1.0,
        window_hours=data.window_hours if np.isfinite(data.window_hours) else float(ORDER_HOURS),
        notes=dict(fitting.notes),
    )
    effect = _effect(data, description, stages, is_send & closed, earlier=False)
    description = replace(description, scale=_scale(data, is_send & closed, ~is_send & closed, effect))
    is_asked = is_later & closed
    effect_later = (_effect(data, description, stages, is_send & closed, earlier=True) * description.scale)[is_asked]
    p_later = np.clip(_logistic(organic.earlier_scores)[is_asked] + effect_later, 1e-6, 1 - 1e-6)
    return FittedFunnel(
        description=description,
        texts={name: stage.text for name, stage in stages.items() if stage.text is not None},
        p_later=p_later,
        effect_later=effect_later,
        metrics=fitting.metrics | {"funnel.scale": description.scale},
    )


class _Fitting:
    """Fits stages on one log, and notes what was too thin."""

    def __init__(
        self,
        *,
        data: Dataset,
        matrix: FloatArray,
        design: Design,
        scaling: Scaling,
        is_later: BoolArray,
        hyper: Hyperparameters,
        progress: Callable[[str], None],
        engine: Engine,
    ) -> None:
        self._engine = engine
        self._data, self._matrix, self._design, self._scaling = data, matrix, design, scaling
        self._is_later, self._hyper, self._progress = is_later, hyper, progress
        self.notes: dict[str, str] = {}
        self.metrics: dict[str, float] = {}

    def linear(
        self,
        label: FloatArray,
        used: BoolArray,
        link: Link,
        exposure: FloatArray | None = None,
        extra: FloatArray | None = None,
        offset: FloatArray | None = None,
        matrix: FloatArray | None = None,
        begin: FloatArray | None = None,
        only: BoolArray | None = None,
        anyway: FloatArray | None = None,
    ) -> LinearFit:
        matrix = self._matrix if matrix is None else matrix
        return fit_linear(
            self._design, matrix, label, used, self._is_later, link, exposure, extra, offset, begin, only, anyway
        )

    def note(self, stage: str, text: str) -> None:
        """Say what a stage lacks and what stands in for it."""
        self.notes[stage] = text
        self._progress(f"stage {stage}: {text}")

    def constant(self, score: float) -> _Stage:
        """Return a stage that says the same of everything."""
        n = len(self._data)
        weights = np.zeros((1 + len(self._design.channels), self._design.width))
        weights[0, 0] = score
        return _Stage(
            weights=StageWeights(weights=_tuples(weights)),
            text=None,
            scores=np.full(n, score),
            earlier_scores=np.full(n, score),
            relevance=np.zeros(n),
        )

    def stage(
        self,
        name: str,
        label: FloatArray,
        used: BoolArray,
        link: Link,
        exposure: FloatArray | None = None,
        relevance: FloatArray | None = None,
        *,
        prior_slope: float = 0.0,
        anyway: FloatArray | None = None,
        of_context: bool = False,
        is_tiring: bool = False,
    ) -> _Stage:
        """Fit a stage on the rows used: linear, then trees where they help; a constant where there is too little.

        One with `anyway`, chances of the same event without what the stage is of, says what comes on top. One that `is_tiring` is drawn towards growing with contacts, and where it has few events looks at nothing but message and contacts.
        """
        events = (
            min(float(label[used].sum()), float((1 - label[used]).sum()))
            if link == "logit"
            else float(label[used].sum())
        )
        earlier, later = used & ~self._is_later, used & self._is_later
        if events < _LEAST_EVENTS or label[earlier].sum() < _LEAST_EARLIER or label[later].sum() < 1:
            least = (
                f"{_LEAST_EVENTS} are needed, {_LEAST_EARLIER} of them in the earlier part of the log, 1 in the later"
            )
            chances = 0.0 if anyway is None else float(anyway[used].sum())
            rate = (max(label[used].sum() - chances, 0.0) + 0.5) / (used.sum() - chances + 1.0)
            self.note(name, f"{events:.0f} events are too few ({least}); the mean rate {rate:.4f} stands for it")
            if link == "logit":
                return self.constant(float(np.log(rate / (1 - rate))))
            total = float(used.sum() if exposure is None else exposure[used].sum())
            return self.constant(float(np.log((label[used].sum() + 0.5) / total)))
        matrix = self._matrix
        if of_context:
            matrix = matrix.copy()
            matrix[:, [i for i, c in enumerate(self._columns) if not is_of_context(c.name)]] = np.nan
        relevance = relevance if relevance is not None and np.ptp(relevance[used]) > 1e-6 else None
        offset = np.zeros(len(label))
        if relevance is not None:
            offset = prior_slope * relevance
        extra = None if relevance is None else relevance[:, None]
        is_thin = is_tiring and events < _FEW_EVENTS
        begin, only = self._tiring() if is_tiring else None, self._of_refusals() if is_thin else None
        linear = self.linear(label, used, link, exposure, extra, offset, matrix, begin, only, anyway)
        text, scores, earlier_scores = (
            (None, linear.scores, linear.earlier_scores)
            if is_thin
            else self._boost(matrix, label, used, link, exposure, linear, anyway)
        )
        exposures_ = np.ones(len(label)) if exposure is None else exposure
        known = None if anyway is None else anyway[later]
        before = loss(link, linear.earlier_scores[later], label[later], exposures_[later], known)
        after = loss(link, earlier_scores[later], label[later], exposures_[later], known)
        self.metrics |= {f"{name}.loss.linear": before, f"{name}.loss": after}
        codes = self._design.channel_codes(matrix)
        slope = np.zeros(len(label))
        width = self._design.width
        if relevance is not None:
            own = linear.weights[1 + np.maximum(codes, 0), width]
            slope = linear.weights[0, width] + np.where(codes >= 0, own, 0.0)
        slope = slope + prior_slope if relevance is not None else slope
        decay = slope * (0.0 if relevance is None else relevance)
        return _Stage(
            weights=StageWeights(
                weights=_tuples(linear.weights[:, :width]),
                relevance=()
                if relevance is None
                else (prior_slope + linear.weights[0, width], *map(float, linear.weights[1:, width])),
                has_trees=text is not None,
            ),
            text=text,
            scores=scores - decay,
            earlier_scores=earlier_scores - decay,
            relevance=slope,
        )

    def _tiring(self) -> FloatArray:
        """Return the weights that a stage begins with which grows with contacts, shape (width,)."""
        names, columns = self._design.names(self._columns), [c.name for c in self._columns]
        found = np.zeros(len(names))
        if _TIRING in columns:
            found[names.index(_TIRING)] = _TIRED * self._scaling.deviations[columns.index(_TIRING)]
        return found

    def _of_refusals(self) -> BoolArray:
        return np.array([name == "" or name in _OF_REFUSALS for name in self._design.names(self._columns)])

    @property
    def _columns(self) -> tuple[Column, ...]:
        return tuple(c for c in self._data.columns if not _is_of_time(c.name))

    def _boost(
        self,
        matrix: FloatArray,
        label: FloatArray,
        used: BoolArray,
        link: Link,
        exposure: FloatArray | None,
        linear: LinearFit,
        anyway: FloatArray | None = None,
    ) -> tuple[str | None, FloatArray, FloatArray]:
        """Grow trees from the linear part's scores, as many as lower the loss on the later part; none where they do not clearly.

        Of what comes on top of `anyway` they are grown on the chance, by the linear part, that an event did.
        """
        offset = np.zeros(len(label)) if exposure is None else np.log(exposure)
        earlier, later = used & ~self._is_later, used & self._is_later
        objective = "poisson" if link == "log" else "binary" if anyway is None else "cross_entropy"
        settings = parameters(self._hyper, int(used.sum())) | {"objective": objective}
        settings["num_leaves"] = 4

        def rows(mask: BoolArray, scores: FloatArray) -> Rows:
            return Rows(
                matrix=matrix[mask],
                label=(label if anyway is None else label * _share_caused(scores, anyway))[mask],
                begin=(scores + offset)[mask],
                categories=tuple(i for i, c in enumerate(self._columns) if c.kind == "category"),
            )

        chosen = self._engine.choose(
            settings,
            rows(earlier, linear.earlier_scores),
            rows(later, linear.earlier_scores),
            self._hyper.trees,
            self._hyper.patience,
        )
        trial, trees = chosen.booster, chosen.trees
        tried = linear.earlier_scores + np.asarray(trial.predict(matrix, raw_score=True, num_iteration=trees))
        exposures_ = np.exp(offset)
        known = None if anyway is None else anyway[later]
        improved = losses(link, linear.earlier_scores[later], label[later], exposures_[later], known) - losses(
            link, tried[later], label[later], exposures_[later], known
        )
        if trees < 1 or improved.mean() <= _CLEARLY * improved.std() / np.sqrt(len(improved)):
            return None, linear.scores, linear.earlier_scores
        final = self._engine.grow(settings, rows(used, linear.scores), trees)
        return final.model_to_string(), linear.scores + np.asarray(final.predict(matrix, raw_score=True)), tried


def _tuples(weights: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(x) for x in row) for row in weights)


def _fit_lags(data: Dataset, cells: Cells, channels: list[str], attention: FloatArray) -> dict[str, ChannelLag]:
    """Return the lag of each channel; that of all sends together for a channel with too few."""
    found = {}
    for channel in channels:
        rows = (data.channel == channel)[cells.send]
        if (data.channel == channel).sum() >= _LEAST_SENDS and data.seen[data.channel == channel].sum() >= 10:
            found[channel] = fit_lag(cells, rows, attention)
    if len(found) < len(channels):
        everything = fit_lag(cells, np.ones(len(cells.send), dtype=bool), attention)
        found = {channel: found.get(channel, everything) for channel in channels}
    return found


def _is_settled(data: Dataset, hours: FloatArray | float) -> BoolArray:
    """Tell of which sends there has been time to hear what followed at once something so many hours after the send."""
    known_until = data.decide_time / 3.6e9 + data.watched_hours
    found: BoolArray = data.send_hours + hours + SETTLE_HOURS <= known_until
    return found


def _delivered(data: Dataset, is_send: BoolArray) -> dict[str, float]:
    """Return P(delivered | send) by channel, drawn towards that of all."""
    overall = float(data.delivered[is_send].mean())
    rates = {}
    for channel in np.unique(data.channel[is_send]):
        mine = data.delivered[is_send & (data.channel == channel)]
        rates[str(channel)] = float((mine.sum() + _PRIOR_SENDS * overall) / (len(mine) + _PRIOR_SENDS))
    return rates


def _log_relevance_left(data: Dataset, hours: FloatArray) -> FloatArray:
    """Return the log of what is left of each message's relevance so many hours after its send, 0 where hours are missing."""
    lag = data.send_hours + hours - data.begin_hours
    return np.where(np.isnan(lag), 0.0, log_relevance(np.nan_to_num(lag), data.half_life_hours))


def _effect(
    data: Dataset, description: FunnelDescription, stages: dict[str, _Stage], used: BoolArray, *, earlier: bool
) -> FloatArray:
    """Return the modelled effect of each decision on P(order), shape (n,): of the sends used by their cells, as serving has it; 0 for others."""
    found = np.zeros(len(data))
    rhythms = Rhythms(description.rhythm)
    for block in blocks(used):
        cells = unroll(data, block, rhythms, to_expiry=True)
        found += _effect_of(data, description, stages, cells, earlier=earlier)
    return found


def _effect_of(
    data: Dataset, description: FunnelDescription, stages: dict[str, _Stage], cells: Cells, *, earlier: bool
) -> FloatArray:
    def score(name: str) -> FloatArray:
        return (stages[name].earlier_scores if earlier else stages[name].scores)[cells.send]

    middle = data.send_hours[cells.send] + cells.age + 0.5
    relevance = log_relevance(middle - data.begin_hours[cells.send], data.half_life_hours[cells.send])
    hazard = hazards(cells, description.lags, data) * np.exp(np.minimum(score("notice"), 20.0))
    click = _logistic(score("click") + stages["click"].relevance[cells.send] * relevance)
    order = _logistic(score("order") + stages["order"].relevance[cells.send] * relevance)
    gain = order * (1 - _logistic(score("organic")))
    delivered = np.array([description.delivered.get(str(channel), 0.0) for channel in data.channel])
    found: FloatArray = delivered * np.bincount(
        cells.send, noticed_by_cell(cells, hazard) * click * gain, minlength=len(data)
    )
    return found


def _scale(data: Dataset, is_send: BoolArray, is_none: BoolArray, effect: FloatArray) -> float:
    """Return the factor that fits the modelled effects of what was sent to the difference that randomisation shows."""
    propensity = data.propensity[is_none]
    weight = (1 - propensity) / propensity
    if not weight.any():
        return 1.0
    sent, none = data.response[is_send], data.response[is_none]
    organic = float(np.average(none, weights=weight))
    difference = float(sent.mean()) - organic
    variance = float(sent.var() / len(sent) + np.sum((weight * (none - organic)) ** 2) / weight.sum() ** 2)
    modelled = float(effect[is_send].mean())
    if variance <= 0:
        return 1.0
    prior = 1 / _PRIOR_DEVIATION**2
    found = (modelled * difference / variance + prior) / (modelled**2 / variance + prior)
    return float(np.clip(found, 0.0, _MOST_SCALE))


def _is_of_time(name: str) -> bool:
    feature = BUILT_IN.get(name)
    return feature is not None and feature.of_time is not None


def _share_caused(scores: FloatArray, anyway: FloatArray) -> FloatArray:
    """Return P(what is scored caused it | an event), shape (n,), where it may happen anyway with these chances."""
    caused = (1 - anyway) * _logistic(scores)
    return caused / (anyway + caused)


def _logistic(x: FloatArray) -> FloatArray:
    found: FloatArray = 1 / (1 + np.exp(-np.clip(x, -40.0, 40.0)))
    return found
