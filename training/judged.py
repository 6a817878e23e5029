"""A decision log made ready to judge policies by: what each decision's outcomes were, and what cross-fitted models and each policy say of it.

Everything that an estimate needs of a decision is a few numbers (`training.increment.Judged`), so that contexts are read one after another and none is
kept. Models are fitted on the customers of the other folds, so that none has seen the outcomes that it is corrected by. Decisions that were not sent in the end
are kept, at no cost: most of them are orders that came before the send, and to leave them out would make sends look worse than no send.

P(channel | context) is summed from the logged distribution. Where the log has none, slots of one channel count as drawn evenly, or the logged slot as the only one,
whichever fits how often channels were logged: sum 1 / P(channel) over sends is how many channels could be chosen. `check_propensities` and the mean weight show where neither does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from models.booster import Booster
from models.bundle import Bundle, Description
from models.context import Context
from models.curves import FunnelModel
from models.eligibility import find_eligible
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.record import from_micros, unpack_actions
from models.rules import Rules
from service.store.engine import asking
from training.broken import UNREADABLE, read_context, unreadable
from training.dataset import DECIDED, Dataset, check_learnable, find_log, limits, read_dataset, wanted_rows
from training.fit import split
from training.funnel import fit_funnel
from training.grow import Hyperparameters, grow
from training.increment import Judged
from training.off_policy import THIN
from training.targets import Chances, Target

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
FOLDS = 3
_CHUNK = 2000
_QUERY = """
SELECT d.decision_id, d.step, d.decide_time, d.context, d.actions, d.order_margin_micros, d.channel, d.send_time, d.propensity, d.policy, d.price_micros,
  EXISTS (SELECT 1 FROM outcomes o WHERE o.decision_id = d.decision_id AND o.step = d.step AND o.type = 'not_sent')
FROM decisions d WHERE {rows} AND {closed} ORDER BY d.decide_time, d.decision_id, d.step
"""
_ORDERS = """
SELECT customer_key, occur_time, type, value_micros FROM outcomes
WHERE type IN ('order', 'store_purchase', 'return') AND NOT machine_generated ORDER BY occur_time
"""
_SUM_TOLERANCE = 1e-6
_TRIED = 2000
"""Decisions by which it is told how slots were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One decision as it is in the log."""

    decision_id: str
    step: int
    context: Context
    channels: Mapping[str, float] | None
    """P(channel | context) by the logged distribution, None where the log has none."""
    chances: Chances | None
    """Of its actions, None where the log has none."""
    order_margin: float
    channel: str
    send_time: datetime | None
    propensity: float
    policy: str
    price: float
    """What the decision was to cost."""
    is_not_sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where a log is, and its decisions as training reads them."""

    url: str
    window: timedelta
    until: datetime | None
    as_of: datetime | None
    data: Dataset

    def __len__(self) -> int:
        return len(self.data)

    def decisions(self) -> Iterator[Logged]:
        """Yield the decisions in the order of `data`.

        Raises
        ------
        LogUnusable: the distribution of one is not one, or does not hold the propensity that was logged.
        """
        with asking(self.url) as connection:
            _, given = limits(connection, find_log(self.url), self.window, self.until, self.as_of)
            wanted = wanted_rows(given, DECIDED, self.data.sample)
            query = text(_QUERY.format(rows=wanted.rows, closed=wanted.closed))
            rows = connection.execution_options(yield_per=_CHUNK).execute(query, wanted.asked)
            for row in rows:
                yield _logged(tuple(row))


def read_log(
    url: str,
    window: timedelta,
    until: datetime | None = None,
    as_of: datetime | None = None,
    most: int | None = None,
) -> Log:
    """Read a log to judge policies by; where it holds more than `most` decisions, those of some customers.

    Raises
    ------
    LogUnusable: it has no decision, a propensity is not in (0, 1], or nothing was left to chance.
    """
    data = read_dataset(url, window, until, as_of=as_of, which=DECIDED, most=most)
    if (data.propensity == 1).all():
        raise LogUnusable(
            "every propensity of the log is 1: it holds what one policy did for certain and cannot judge another; "
            "log under a policy that explores, and give its propensities"
        )
    check_learnable(data)
    return Log(url=url, window=window, until=until, as_of=as_of, data=data)


def _logged(row: Sequence[object]) -> Logged:
    decision_id, step, _, text, packed, margin, channel, send_time, propensity, policy, price, is_not_sent = row
    context = read_context(decision_id, step, str(text))
    send = None if channel == NO_SEND or send_time is None else from_micros(int(str(send_time)))
    chances = None
    channels: dict[str, float] | None = None
    try:
        distribution = unpack_actions(context, packed if isinstance(packed, bytes) else None)
    except UNREADABLE as error:
        raise unreadable(decision_id, step, "actions", error) from error
    if distribution is not None:
        chances = {
            (action.channel, action.send_time): float(p)
            for action, p in zip(distribution.table.actions, distribution.probabilities, strict=True)
        }
        channels = {}
        for (name, _), p in chances.items():
            channels[name] = channels.get(name, 0.0) + p
        if abs(sum(channels.values()) - 1) > _SUM_TOLERANCE or min(chances.values()) < 0:
            raise LogUnusable(
                f"decision {decision_id} step {step} has a distribution that does not sum to 1; mend the log"
            )
        own = chances.get((str(channel), send), 0.0)
        if abs(own - float(str(propensity))) > _SUM_TOLERANCE:
            raise LogUnusable(
                f"decision {decision_id} step {step} has propensity {propensity}, but {own} in its distribution; mend the log"
            )
    return Logged(
        decision_id=str(decision_id),
        step=int(str(step)),
        context=context,
        channels=channels,
        chances=chances,
        order_margin=int(str(margin)) / 1e6,
        channel=str(channel),
        send_time=send,
        propensity=float(str(propensity)),
        policy=str(policy),
        price=int(str(price)) / 1e6,
        is_not_sent=bool(is_not_sent),
    )


def fit_models(
    log: Log,
    fold: IntArray,
    seed: int,
    progress: Callable[[str], None],
    say: Callable[[str], None] = lambda _: None,
) -> list[Bundle]:
    """Fit a model for each fold on the customers of the others: a funnel where the log can teach one, else the one model."""
    found = []
    count = int(fold.max()) + 1
    for number in range(count):
        say(f"fitting model {number + 1} of {count} on {len(log)} decisions")
        part = log.data.take(fold != number)
        check_learnable(part)
        found.append(_fit(part, Hyperparameters(seed=seed + number), f"fold-{number}", progress))
    return found


def _fit(data: Dataset, hyper: Hyperparameters, name: str, progress: Callable[[str], None]) -> Bundle:
    is_later = split(data, hyper)
    funnel = fit_funnel(data, is_later, hyper, progress)
    if funnel is not None:
        hyper = replace(hyper, trees=1)  # the one model goes with it and is not asked
    one = grow(data, data.matrix, data.response, np.ones(len(data), dtype=bool), is_later, hyper)
    sent = data.channel != NO_SEND
    rates = {str(c): float(data.unsubscribed[data.channel == c].mean()) for c in np.unique(data.channel[sent])}
    description = Description(
        columns=data.columns,
        calibration_slope=one.calibration.slope,
        calibration_intercept=one.calibration.intercept,
        unsubscribe_rates=rates,
    )
    boosters = {} if funnel is None else {stage: Booster(text) for stage, text in funnel.texts.items()}
    model = None if funnel is None else FunnelModel(funnel.description, boosters)
    return Bundle(name, name, description, Booster(one.text), model)


def make_folds(data: Dataset, count: int, seed: int) -> IntArray:
    """Return the fold of each decision: those of one customer are in one."""
    customer = np.unique(data.customer, return_inverse=True)[1]
    return np.asarray(np.random.default_rng(seed).integers(count, size=customer.max() + 1)[customer], dtype=np.intp)


class _Columns:
    """The numbers of one policy, row by row."""

    def __init__(self, n: int) -> None:
        self.target = np.zeros(n)
        """P(logged channel) under the policy."""
        self.target_action = np.zeros(n)
        self.slot_ratio = np.ones(n)
        self.modelled_clicks = np.zeros(n)
        """Sum over actions of P(action) P(click) gain of a click."""
        self.modelled_orders = np.zeros(n)
        self.modelled_unsubscribes = np.zeros(n)
        self.cost = np.zeros(n)
        self.sent = np.zeros(n)
        self.thin = np.zeros(n)
        """Share of the policy's probability on channels that the log hardly tried."""


def judge(
    log: Log,
    targets: Sequence[Target],
    models: Sequence[Bundle],
    fold: IntArray,
    rules: Rules,
    since: datetime | None,
    progress: Callable[[int], object],
) -> dict[str, Judged]:
    """Return what the estimates need, for each policy by its name.

    Parameters
    ----------
    models : one for each fold, fitted on the others.
    rules : for what may be sent in a context whose distribution was not logged, and prices where the policy's own rules name none.
    since : decisions made before are left out.
    """
    data, n = log.data, len(log)
    channel_propensity, no_send, click, gain, orders = np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    organic, unsubscribe, margin, price, paid = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    value_after, click_delay = np.zeros(n), np.full(n, np.nan)
    orders_of, waits = _Orders(log), list[float]()
    step, message = np.ones(n, dtype=np.intp), np.zeros(n, dtype=np.intp)
    kept, names = np.ones(n, dtype=bool), dict[str, int]()
    columns = {target.name: _Columns(n) for target in targets}
    has_clicks = all(model.funnel is not None for model in models) and data.clicked.sum() > 0
    usual = float(data.value[data.response > 0].mean())
    is_even = draws_evenly(log, rules)
    for i, logged in enumerate(log.decisions()):
        progress(1)
        step[i], message[i] = logged.step, names.setdefault(logged.decision_id, len(names))
        is_early = since is not None and logged.context.decide_time < since
        if is_early or logged.context.message.is_owed or logged.policy == "holdout":
            kept[i] = False
            continue
        asked = {t.name: _asked(t, logged, rules) for t in targets}
        own = (logged.channel, logged.send_time)
        slots = _slots(logged, rules, is_even=is_even)
        actions = list(dict.fromkeys([own, *slots, *(a for chances, _ in asked.values() for a in chances)]))
        actions = [a for a in actions if a[1] is not None]
        predicted = _predict(models[fold[i]], logged.context, actions, has_clicks)
        place = {action: j for j, action in enumerate(actions)}
        organic[i] = predicted.organic
        margin[i] = logged.order_margin or usual
        if data.clicked[i] > 0:
            click_delay[i] = max(data.send_hours[i] + data.clicked_hours[i] - data.decide_time[i] / 3.6e9, 0.0)
            value_after[i] = orders_of.value(i, click_delay[i])
        elif data.response[i] > 0:
            waits.append(orders_of.first(i))
        price[i] = logged.price
        paid[i] = 0.0 if logged.is_not_sent else logged.price
        by_channel = logged.channels or {logged.channel: min(1.0, logged.propensity * max(len(slots), 1))}
        channel_propensity[i] = by_channel.get(logged.channel, logged.propensity)
        no_send[i] = by_channel.get(NO_SEND, 0.0)
        usual_click = sum(p * float(predicted.click[place[slot]]) for slot, p in slots.items())
        if own in place:
            j = place[own]
            click[i], gain[i], orders[i] = predicted.click[j], predicted.gain[j], predicted.orders[j]
            unsubscribe[i] = predicted.unsubscribe[j]
        for name, (chances, prices) in asked.items():
            mine = columns[name]
            for action, p in chances.items():
                if p == 0.0:
                    continue
                mine.target[i] += p * (action[0] == logged.channel)
                mine.target_action[i] += p * (action == own)
                if logged.channels is not None:
                    mine.thin[i] += p * (by_channel.get(action[0], 0.0) < THIN)
                if action[1] is None:
                    continue
                j = place[action]
                mine.modelled_clicks[i] += p * predicted.click[j] * predicted.gain[j]
                mine.modelled_orders[i] += p * predicted.orders[j]
                mine.modelled_unsubscribes[i] += p * predicted.unsubscribe[j]
                mine.cost[i] += p * prices.get(action[0], 0.0)
                mine.sent[i] += p
                if action[0] == logged.channel:
                    mine.slot_ratio[i] += p * float(predicted.click[j])
            if logged.channels is None:
                mine.thin[i] = mine.target[i] / channel_propensity[i] * (channel_propensity[i] < THIN)
            mine.slot_ratio[i] = _ratio(mine.slot_ratio[i] - 1, mine.target[i] * usual_click)
    if not kept.any():
        raise LogUnusable(
            "no decision is left to judge a policy by: those of owed messages, of the holdout and before --since are left out"
        )
    value_of_order = usual
    left = _share_left(click_delay, np.array(waits))
    shared = {
        "channel_propensity": channel_propensity,
        "propensity": data.propensity,
        "no_send_propensity": no_send,
        "is_send": data.channel != NO_SEND,
        "channel": data.channel,
        "value": data.value,
        "clicked": data.clicked,
        "value_after": value_after,
        "organic_after": np.where(data.clicked > 0, organic * value_of_order * left, 0.0),
        "unsubscribed": data.unsubscribed,
        "price": price,
        "paid": paid,
        "margin": margin,
        "organic": organic * value_of_order,
        "click": click,
        "gain": gain,
        "orders": orders,
        "unsubscribe": unsubscribe,
        "step": step,
        "message": message,
        "customer": np.unique(data.customer, return_inverse=True)[1],
    }
    found = {}
    for name, mine in columns.items():
        own_columns = {column: getattr(mine, column) for column in vars(mine)}
        arrays = {key: value[kept] for key, value in (shared | own_columns).items()}
        found[name] = Judged(has_clicks=has_clicks, has_steps=bool((step > 1).any()), **arrays)
    return found


def _asked(target: Target, logged: Logged, rules: Rules) -> tuple[Chances, Mapping[str, float]]:
    """Return what a policy would do; the logging one does what is in the log."""
    if target.rules is not None:
        return target.chances(logged.context)
    if logged.chances is None:
        raise LogUnusable(
            f"decision {logged.decision_id} has no distribution, so that the policy that made the log is not known; "
            "judge another policy, or one by its rules"
        )
    prices = {c.channel: c.price_micros / 1e6 for c in find_eligible(logged.context, rules).eligible}
    return logged.chances, prices


def draws_evenly(log: Log, rules: Rules) -> bool:
    """Tell whether slots of a channel were drawn evenly, where the log has no distributions; else each send had one slot."""
    even = single = channels = 0.0
    for logged in islice((one for one in log.decisions() if one.chances is None), _TRIED):
        found = find_eligible(logged.context, rules).eligible
        channels += len(found)
        if logged.send_time is not None:
            slots = next((c.slots for c in found if c.channel == logged.channel), ())
            single += 1 / logged.propensity
            even += 1 / min(1.0, logged.propensity * max(len(slots), 1))
    return abs(even - channels) <= abs(single - channels)


def _slots(logged: Logged, rules: Rules, *, is_even: bool) -> Chances:
    """Return P(slot | channel) of the slots of the logged channel: by the logged distribution, else evenly over those that the rules leave open, or the one."""
    if logged.send_time is None:
        return {}
    own = (logged.channel, logged.send_time)
    if logged.chances is not None and logged.channels is not None:
        total = logged.channels[logged.channel]
        return {action: p / total for action, p in logged.chances.items() if action[0] == logged.channel and p > 0}
    if not is_even:
        return {own: 1.0}
    found = next((c.slots for c in find_eligible(logged.context, rules).eligible if c.channel == logged.channel), ())
    slots = [(logged.channel, slot.start) for slot in found]
    return dict.fromkeys(slots, 1 / len(slots)) if own in slots else {own: 1.0}


def _ratio(chosen: float, usual: float) -> float:
    return chosen / usual if chosen > 0 and usual > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predicted:
    """What a model says of sends, shape (m,)."""

    click: FloatArray
    gain: FloatArray
    """Orders that a click is expected to cause."""
    orders: FloatArray
    unsubscribe: FloatArray
    organic: float


def _predict(
    model: Bundle, context: Context, sends: Sequence[tuple[str, datetime | None]], has_clicks: bool
) -> _Predicted:
    actions = [Action(channel=NO_SEND), *(Action(channel=channel, send_time=moment) for channel, moment in sends)]
    found = model.estimate(context, actions, {})
    orders = found.p_response[1:] - found.p_response[0]
    click = np.zeros(len(sends)) if found.curves is None else found.curves.p_click
    gain = np.divide(orders, click, out=np.zeros(len(sends)), where=click > 0) if has_clicks else np.zeros(len(sends))
    return _Predicted(
        click=click,
        gain=gain,
        orders=orders,
        unsubscribe=found.p_unsubscribe[1:],
        organic=float(found.p_response[0]),
    )


def _share_left(delay: FloatArray, waits: FloatArray) -> FloatArray:
    """Return the share of orders made anyway that come later than so many hours after the decision; 1 where hours are missing."""
    if not len(waits):
        return np.ones(len(delay))
    later = 1 - np.searchsorted(np.sort(waits), delay, side="right") / len(waits)
    found: FloatArray = np.where(np.isnan(delay), 1.0, later)
    return found


class _Orders:
    """When customers ordered, and for how much; what came back counts against it."""

    def __init__(self, log: Log) -> None:
        self._data, self._window = log.data, log.window / timedelta(hours=1)
        self._found: dict[str, list[tuple[float, float | None]]] = {}
        known = set(log.data.customer.tolist())
        with asking(log.url) as connection:
            for key, moment, kind, value in connection.execution_options(yield_per=_CHUNK).execute(text(_ORDERS)):
                if key not in known:
                    continue
                sign = -1 if kind == "return" else 1
                entry = (moment / 3.6e9, None if value is None else sign * value / 1e6)
                self._found.setdefault(str(key), []).append(entry)

    def _within(self, row: int, begin: float) -> list[tuple[float, float | None]]:
        decided = float(self._data.decide_time[row]) / 3.6e9
        mine = self._found.get(str(self._data.customer[row]), [])
        return [(t - decided, v) for t, v in mine if decided + begin < t <= decided + self._window]

    def first(self, row: int) -> float:
        """Return how many hours after a decision the first order came; the window where there was none."""
        return min((wait for wait, _ in self._within(row, 0.0)), default=self._window)

    def value(self, row: int, begin: float) -> float:
        """Return the value of what was ordered later than so many hours after a decision."""
        mine = self._within(row, begin)
        mean = float(self._data.value[row] / max(len(self._within(row, 0.0)), 1))
        return sum(mean if value is None else value for _, value in mine)
