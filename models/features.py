"""The one list of features, used in training and serving.

A feature is of the context, and then the same for all actions of a decision, or of the action's channel, or of its send time; of no send,
features of channel and time are missing but for `channel` itself. What a caller sends as features of its own comes after these under the prefix "x.". A new feature
is one line in FEATURES.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from models.context import Context, FeatureValue
from models.local_time import zone
from models.slate import Action as Action
from models.slate import Actions

FloatArray = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)
Kind = Literal["number", "category"]
NO_SEND = "none"
CUSTOM_PREFIX = "x."
_DAY = timedelta(days=1)
_WEEK, _MONTH, _MEMORY = 7 * _DAY, 30 * _DAY, 60 * _DAY


class Counts(dict[str, int]):
    """How many there are of each; a `Counter` takes five times as long to make, and each decision makes two."""

    def __missing__(self, _name: str) -> int:
        return 0

    def total(self) -> int:
        """How many there are in all."""
        return sum(self.values())


@dataclass(slots=True)
class Facts:
    """A context, and what its contacts add up to, counted in one go."""

    context: Context
    contacts_1d: int = 0
    contacts_7d: int = 0
    contacts_30d: Counts = field(default_factory=Counts)
    """By channel, as the ones below."""
    seen_60d: Counts = field(default_factory=Counts)
    clicks_60d: int = 0
    last_contact: dict[str, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context) -> "Facts":
        """Count the contacts of a context: those begun by the decision, and those seen or clicked of the last 60 days."""
        found, now = cls(context), context.decide_time
        day, week, month, memory = now - _DAY, now - _WEEK, now - _MONTH, now - _MEMORY
        for contact in context.customer.contacts:
            channel, start = contact.channel, contact.start
            if start <= now:
                found.last_contact[channel] = max(start, found.last_contact.get(channel, start))
                if start > month:
                    found.contacts_30d[channel] += 1
                    found.contacts_7d += start > week
                    found.contacts_1d += start > day
            if start > memory:
                found.seen_60d[channel] += contact.seen_time is not None
                found.clicks_60d += contact.click_time is not None
        return found


@dataclass(frozen=True, slots=True)
class Clock:
    """All that features of the send time may ask beside it, so that customers of one zone share them."""

    decide_time: datetime
    zone: ZoneInfo

    @classmethod
    def of(cls, context: Context) -> "Clock":
        """Return the clock of a context."""
        return cls(context.decide_time, zone(context.customer.time_zone))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature: its name, kind, meaning and unit, and how it is worked out. None stands for missing."""

    name: str
    kind: Kind
    meaning: str
    of_context: Callable[[Facts], FeatureValue | None] | None = None
    of_channel: Callable[[Facts, str], FeatureValue | None] | None = None
    of_time: Callable[[Clock, datetime], FeatureValue | None] | None = None


def _hours_since(moment: datetime, earlier: Iterable[datetime | None]) -> float | None:
    past = [t for t in earlier if t is not None and t <= moment]
    return (moment - max(past)).total_seconds() / 3600 if past else None


def _hours_since_last(moment: datetime, last: datetime | None) -> float | None:
    return None if last is None or last > moment else (moment - last).total_seconds() / 3600


def _active_hours(context: Context, days: float) -> float:
    now = context.decide_time.timestamp() / 3600
    hours = context.customer.active_hours
    return float(len(hours) - bisect_right(hours, now - 24 * days))


def _hours_since_active(context: Context) -> float | None:
    hours = context.customer.active_hours
    return context.decide_time.timestamp() / 3600 - hours[-1] if hours else None


def _lifetime(context: Context) -> float:
    """Return how long a message lives; a later step of its cascade has that of the first, as what is left would pass for another sort of message."""
    message = context.message
    begin = max(message.earliest_time, context.decide_time) if context.step == 1 else message.earliest_time
    return (message.expire_time - begin).total_seconds() / 3600


FEATURES: tuple[Feature, ...] = (
    Feature(name="channel", kind="category", meaning="channel of the action", of_channel=lambda f, channel: channel),
    Feature(
        name="local_hour",
        kind="number",
        meaning="hour of the send on the customer's clock, 0 to 24",
        of_time=lambda c, t: (local := t.astimezone(c.zone)).hour + local.minute / 60,
    ),
    Feature(
        name="local_weekday",
        kind="number",
        meaning="day of the send on the customer's calendar, 0 = Monday to 6",
        of_time=lambda c, t: float(t.astimezone(c.zone).weekday()),
    ),
    Feature(
        name="lag_hours",
        kind="number",
        meaning="hours from the decision to the send",
        of_time=lambda c, t: (t - c.decide_time).total_seconds() / 3600,
    ),
    Feature(
        name="channel_contacts_30d",
        kind="number",
        meaning="contacts through the action's channel in the 30 days before the decision",
        of_channel=lambda f, channel: float(f.contacts_30d[channel]),
    ),
    Feature(
        name="hours_since_channel_contact",
        kind="number",
        meaning="hours from the last contact through the action's channel to the decision",
        of_channel=lambda f, channel: _hours_since_last(f.context.decide_time, f.last_contact.get(channel)),
    ),
    Feature(
        name="channel_seen_60d",
        kind="number",
        meaning="contacts of the last 60 days through the action's channel that were seen",
        of_channel=lambda f, channel: float(f.seen_60d[channel]),
    ),
    Feature(
        name="message_kind", kind="category", meaning="kind of message", of_context=lambda f: f.context.message.kind
    ),
    Feature(
        name="category", kind="category", meaning="legal category", of_context=lambda f: f.context.message.category
    ),
    Feature(
        name="offer",
        kind="category",
        meaning="offer in the message",
        of_context=lambda f: f.context.message.offer or None,
    ),
    Feature(
        name="journey_stage",
        kind="category",
        meaning="where the customer is on their way",
        of_context=lambda f: f.context.message.journey_stage or None,
    ),
    Feature(
        name="order_margin",
        kind="number",
        meaning="margin of one order, in units of the currency",
        of_context=lambda f: f.context.message.order_margin_micros / 1e6,
    ),
    Feature(
        name="lifetime_hours",
        kind="number",
        meaning="hours from the first decision, or the message's earliest time if that is later, until it expires",
        of_context=lambda f: _lifetime(f.context),
    ),
    Feature(
        name="contacts_1d", kind="number", meaning="contacts in the last day", of_context=lambda f: float(f.contacts_1d)
    ),
    Feature(
        name="contacts_7d",
        kind="number",
        meaning="contacts in the last 7 days",
        of_context=lambda f: float(f.contacts_7d),
    ),
    Feature(
        name="contacts_30d",
        kind="number",
        meaning="contacts in the last 30 days",
        of_context=lambda f: float(f.contacts_30d.total()),
    ),
    Feature(
        name="hours_since_contact",
        kind="number",
        meaning="hours since the last contact through any channel",
        of_context=lambda f: _hours_since(f.context.decide_time, f.last_contact.values()),
    ),
    Feature(
        name="orders_90d",
        kind="number",
        meaning="orders in the last 90 days",
        of_context=lambda f: float(
            sum(
                1
                for t in f.context.customer.order_times
                if f.context.decide_time - 90 * _DAY < t <= f.context.decide_time
            )
        ),
    ),
    Feature(
        name="hours_since_order",
        kind="number",
        meaning="hours since the last order",
        of_context=lambda f: _hours_since(f.context.decide_time, f.context.customer.order_times),
    ),
    Feature(
        name="seen_60d",
        kind="number",
        meaning="contacts of the last 60 days that were seen",
        of_context=lambda f: float(f.seen_60d.total()),
    ),
    Feature(
        name="clicks_60d",
        kind="number",
        meaning="contacts of the last 60 days that were clicked",
        of_context=lambda f: float(f.clicks_60d),
    ),
    Feature(
        name="active_hours_14d",
        kind="number",
        meaning="hours with any activity in the last 14 days",
        of_context=lambda f: _active_hours(f.context, 14),
    ),
    Feature(
        name="hours_since_active",
        kind="number",
        meaning="hours since the last activity",
        of_context=lambda f: _hours_since_active(f.context),
    ),
    Feature(
        name="step", kind="number", meaning="step of the cascade, from 1", of_context=lambda f: float(f.context.step)
    ),
)
BUILT_IN: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the model's matrix; of a category, the code of a value is its place in `categories`."""

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()

    @property
    def codes(self) -> dict[str, float]:
        return {value: float(code) for code, value in enumerate(self.categories)}


def feature_values(context: Context, action: Action) -> dict[str, FeatureValue]:
    """Return all features of one action by name, missing ones left out: what the decision log keeps."""
    found: dict[str, FeatureValue] = {}
    facts = Facts.of(context)
    for feature in FEATURES:
        value = _value(feature, facts, action)
        if value is not None:
            found[feature.name] = value
    found.update((CUSTOM_PREFIX + name, value) for name, value in context.features.items())
    return found


def _value(feature: Feature, facts: Facts, action: Action) -> FeatureValue | None:
    if feature.of_context is not None:
        return feature.of_context(facts)
    if action.send_time is None:
        return action.channel if feature.name == "channel" else None
    if feature.of_channel is not None:
        return feature.of_channel(facts, action.channel)
    return None if feature.of_time is None else feature.of_time(Clock.of(facts.context), action.send_time)


class Encoder:
    """Turns feature values into the rows of a model's matrix; missing values, unseen categories and wrong types become NaN."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._codes = [column.codes if column.kind == "category" else None for column in self.columns]
        features = [BUILT_IN.get(column.name) for column in self.columns]
        self._of_context = [(i, f.of_context) for i, f in enumerate(features) if f is not None and f.of_context]
        self._of_channel = [(i, f, f.of_channel) for i, f in enumerate(features) if f is not None and f.of_channel]
        self._of_time = [(i, f.of_time) for i, f in enumerate(features) if f is not None and f.of_time]
        self._is_number = [
            f is not None and f.kind == "number" and c is None for f, c in zip(features, self._codes, strict=True)
        ]
        self._channel_places = [i for i, _, _ in self._of_channel]
        self._time_places = [i for i, _ in self._of_time]
        self._time_columns, self._channel_columns = _columns(self._time_places), _columns(self._channel_places)
        self._of_caller = [
            (i, column.name.removeprefix(CUSTOM_PREFIX))
            for i, column in enumerate(self.columns)
            if features[i] is None and column.name.startswith(CUSTOM_PREFIX)
        ]

    def encode_values(self, values: Mapping[str, FeatureValue]) -> FloatArray:
        """Encode the values of one action as a row, shape (n_columns,)."""
        row = [self._code(index, values.get(column.name)) for index, column in enumerate(self.columns)]
        return np.array(row, dtype=np.float64)

    def encode_actions(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """Encode all actions of one context, shape (n_actions, n_columns); each feature is worked out once for all that share it."""
        found: FloatArray = self.encode_each([context], actions)[0]
        return found

    def encode_each(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """Encode the same actions of several contexts, shape (k, n_actions, n_columns)."""
        listed, facts = Actions.of(actions), [Facts.of(context) for context in contexts]
        found = np.empty((len(facts), len(listed), len(self.columns)))
        found[:] = np.array([self._context_row(of_one) for of_one in facts]).reshape(len(facts), 1, -1)
        if self._channel_places:
            rows = [[self._of_firsts(of_one, listed, *column) for column in self._of_channel] for of_one in facts]
            block = np.array(rows, dtype=np.float64).take(listed.kinds[1], axis=2)  # None is NaN by now
            found[:, :, self._channel_columns] = block.transpose(0, 2, 1)
        if self._time_places:
            clocks = [Clock.of(context) for context in contexts]
            of_times = [listed.once((self, clock), partial(self._of_times, listed, clock)) for clock in clocks]
            if len(set(clocks)) == 1:
                found[:, :, self._time_columns] = of_times[0]
            else:
                for matrix, of_one in zip(found, of_times, strict=True):
                    matrix[:, self._time_columns] = of_one
        return found

    def _of_firsts(
        self,
        facts: Facts,
        actions: Actions,
        index: int,
        feature: Feature,
        of_channel: Callable[[Facts, str], FeatureValue | None],
    ) -> Sequence[FeatureValue | None]:
        """Encode a feature of channel of the first action of each; None where it is missing."""
        firsts, _ = actions.kinds
        if self._is_number[index]:
            return [None if action.send_time is None else of_channel(facts, action.channel) for action in firsts]
        if feature.name == "channel":
            return actions.once((self, index), lambda: [self._code(index, action.channel) for action in firsts])
        return [self._code(index, _value(feature, facts, action)) for action in firsts]

    def _of_times(self, actions: Actions, clock: Clock) -> FloatArray:
        """Encode the features of time of all actions, shape (n_actions, n_columns of time)."""
        moments, of_moment = actions.moments
        rows = [
            [math.nan if moment is None else self._code(i, of_time(clock, moment)) for i, of_time in self._of_time]
            for moment in moments
        ]
        return np.array(rows).reshape(len(moments), len(self._time_places))[of_moment]

    def encode_channels(self, contexts: Sequence[Context], channels: Sequence[Sequence[str]]) -> FloatArray:
        """Encode a row for each channel of each context, features of time missing, and below all of them one for each context alone; shape (n + k, n_columns)."""
        facts = [Facts.of(context) for context in contexts]
        alone = np.array([self._context_row(of_one) for of_one in facts]).reshape(len(facts), -1)
        matrix = np.concatenate([np.repeat(alone, [len(of_one) for of_one in channels], axis=0), alone])
        asked = [(of_one, name) for of_one, names in zip(facts, channels, strict=True) for name in names]
        for index, _, of_channel in self._of_channel:
            values = [of_channel(of_one, name) for of_one, name in asked]
            if not self._is_number[index]:
                values = [self._code(index, value) for value in values]
            matrix[: len(asked), index] = np.array(values, dtype=np.float64)  # None is NaN by now
        return matrix

    def _context_row(self, facts: Facts) -> list[float]:
        """Return a row of what the context says, NaN in the columns of channel and time."""
        row = [math.nan] * len(self.columns)
        is_number, codes = self._is_number, self._codes
        for index, of_context in self._of_context:
            value = of_context(facts)
            row[index] = value if is_number[index] and type(value) is float else self._code(index, value)
        known = facts.context.features
        for index, name in self._of_caller:
            value = known.get(name)
            row[index] = value if type(value) is float and codes[index] is None else self._code(index, value)
        return row

    def _code(self, index: int, value: FeatureValue | None) -> float:
        if value is None:
            return math.nan
        codes = self._codes[index]
        if codes is not None:
            return codes.get(category_name(value), math.nan)
        return math.nan if isinstance(value, str) else float(value)


def _columns(places: list[int]) -> slice | list[int]:
    """Return these columns as a slice, where they lie side by side."""
    begin, end = (places[0], places[-1] + 1) if places else (0, 0)
    return slice(begin, end) if places == list(range(begin, end)) else places


def category_name(value: FeatureValue) -> str:
    """Return how a value is spelled as a category."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else repr(float(value)).removesuffix(".0")


def is_of_context(name: str) -> bool:
    """Tell whether a feature is of the context, and so the same for every channel and for no send."""
    feature = BUILT_IN.get(name)
    return feature is None or feature.of_context is not None
