"""Learning while serving: what decisions and outcomes add to the sums of models.correction, and the factors that decisions are made with.

What a send was expected to do is booked in the unit of work that keeps its decision, and what an outcome changes in the unit that keeps the outcome, as
the difference of what is known with it and without it. So the sums are those of all that is known, in whatever order it came, and none is counted
twice or lost with a crash.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

from models.context import Mode, Verdict
from models.correction import (
    ORDERS,
    REACTIONS,
    Cell,
    Correction,
    Corrections,
    Factors,
    Forecast,
    Happenings,
    Sums,
    cells,
    change,
    epoch_hour,
    factors_of,
    happenings,
    orders_until,
)
from models.decide import Decision
from models.errors import StoreUnavailable
from service.store.store import DecisionRow, OutcomeRow, Reader, Store, Unit

T = TypeVar("T")

KEPT_HOURS = 60 * 24
"""Sums of earlier hours count for a twentieth at most; they are not read, and deleted with the first decision of a day."""
_CHANGING_HOURS = 80
"""What is reported soon after it happened changes no sums older than this; older ones are read again once a day."""
_HOUR_MICROS = 3_600_000_000
_TELLING = frozenset({"sent", "not_sent", "undelivered", "seen", "opened", "clicked", "unsubscribe", "complaint"})
_ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Send:
    """A send that is learned from."""

    decision_id: str
    step: int
    customer_key: str
    bundle: str
    channel: str
    kind: str
    forecast: Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChoiceForecast:
    __pydantic_config__ = ConfigDict(extra="ignore")

    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _MessageKind:
    __pydantic_config__ = ConfigDict(extra="ignore")

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ContextKind:
    __pydantic_config__ = ConfigDict(extra="ignore")

    message: _MessageKind


_FORECAST, _KIND = TypeAdapter(_ChoiceForecast), TypeAdapter(_ContextKind)


def book(unit: Unit, decision: Decision, row: DecisionRow) -> None:
    """Add what a decision's send is expected to do; nothing where it is not LIVE, sends nothing, or the bundle forecasts nothing."""
    forecast = decision.choice.forecast
    if forecast is None or not _is_live_send(row):
        return
    send = _send(row, forecast, decision.context.message.kind)
    outcomes = unit.list_outcomes(row.decision_id) if row.step > 1 else ()
    _add(unit, send, None, _happened(unit, send, outcomes))


def learn(unit: Unit, row: OutcomeRow, steps: Sequence[DecisionRow]) -> None:
    """Add what is known by an outcome that was stored, or adopted, in this unit; `steps` are those of its decision, if it has one.

    An order counts for every send that its customer clicked before it, within the window in which the send's bundle looks for orders. A reaction to one send ends the trials of the others of
    its message. All but orders must have happened within the attribution window.
    """
    if row.machine_generated:
        return
    if row.type in ORDERS:
        hour = row.occur_time // _HOUR_MICROS
        for decision_id, step in unit.list_clicked(row.customer_key, *_span(hour - KEPT_HOURS, hour)):
            clicked = unit.find_step(decision_id, step)
            if clicked is not None:
                _change(unit, clicked, unit.list_outcomes(decision_id), row.event_id)
    elif row.status == _ACCEPTED and row.type in _TELLING:
        outcomes = unit.list_outcomes(row.decision_id)
        for decision in steps:
            if decision.step == row.step or row.type in REACTIONS:
                _change(unit, decision, outcomes, row.event_id)


def learn_merge(unit: Unit, keys: Sequence[str]) -> None:
    """Add what is known by several people being one, before they are merged: an order of one counts for sends that another clicked."""
    for key in keys:
        for decision_id, step in unit.list_clicked(key, 0, _MAX_MICROS):
            row = unit.find_step(decision_id, step)
            send = None if row is None else _send_of(row)
            if send is not None:
                outcomes = unit.list_outcomes(decision_id)
                before, after = _happened(unit, send, outcomes), _happened(unit, send, outcomes, keys=keys)
                _add(unit, send, before, after)


_MAX_MICROS = 2**62


def _change(unit: Unit, row: DecisionRow, outcomes: Sequence[OutcomeRow], event_id: str) -> None:
    """Add the difference that one outcome makes to what is known of a send."""
    send = _send_of(row)
    if send is not None:
        before = _happened(unit, send, outcomes, without=event_id)
        _add(unit, send, before, _happened(unit, send, outcomes))


def _add(unit: Unit, send: _Send, before: Happenings | None, after: Happenings) -> None:
    if before != after:
        changed = change(send.forecast, before, after)
        unit.add_statistics(cells(send.bundle, send.channel, send.kind, send.step, changed))


def _happened(
    reader: Reader, send: _Send, outcomes: Iterable[OutcomeRow], *, without: str = "", keys: Sequence[str] = ()
) -> Happenings:
    """Return what is known of a send from its message's outcomes and the orders of its customer, or of these, but for one outcome."""
    own: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    for row in outcomes:
        if row.status == _ACCEPTED and not row.machine_generated and row.event_id != without:
            (own if row.step == send.step else others).append((row.type, row.occur_time // _HOUR_MICROS))
    clicked = min((hour for kind, hour in own if kind == "clicked"), default=None)
    orders: list[int] = []
    if clicked is not None:
        for key in keys or (send.customer_key,):
            found = reader.list_orders(key, *_span(clicked, orders_until(clicked, send.forecast.order_until)))
            orders += [moment // _HOUR_MICROS for event_id, moment in found if event_id != without]
    return happenings(own, others, orders, order_until=send.forecast.order_until)


def _span(first: int, last: int) -> tuple[int, int]:
    """Return the begin and the end, in microseconds since 1970, of hours."""
    return first * _HOUR_MICROS, (last + 1) * _HOUR_MICROS


def _is_live_send(row: DecisionRow) -> bool:
    return row.mode == Mode.LIVE and row.verdict == Verdict.SEND


def _send_of(row: DecisionRow) -> _Send | None:
    if not _is_live_send(row) or row.is_erased:
        return None
    forecast = _FORECAST.validate_json(row.choice).forecast
    return None if forecast is None else _send(row, forecast, _KIND.validate_json(row.context).message.kind)


def _send(row: DecisionRow, forecast: Forecast, kind: str) -> _Send:
    return _Send(
        decision_id=row.decision_id,
        step=row.step,
        customer_key=row.customer_key,
        bundle=row.bundle_version,
        channel=row.channel,
        kind=kind,
        forecast=forecast,
    )


@dataclass(slots=True, kw_only=True)
class _Known:
    """The sums of one bundle as they were read."""

    version: str
    corrections: Corrections
    sums: dict[Cell, Sums]
    hour: int
    """Until which they were read."""
    day: int
    """On which all of them were read."""
    read_seconds: float


class Learner:
    """The factors of the bundle that serves, from sums that are read again when the hour changes and every few seconds.

    Safe for threads. One thread reads; the others go on with what was known before, or without factors where another bundle begins to serve.
    """

    def __init__(
        self,
        store: Store,
        poll_seconds: float,
        seconds: Callable[[], float] = time.monotonic,
        *,
        is_aside: bool = False,
    ) -> None:
        """`is_aside` says that a thread of its own reads all sums once a day, and not the decision that finds them due."""
        self._store = store
        self._poll_seconds = poll_seconds
        self._seconds = seconds
        self._known: _Known | None = None
        self._is_reading = False
        self._lock = threading.Lock()
        self._forgot_day = -1
        self._is_aside = is_aside
        self._aside: threading.Thread | None = None

    def factors(self, version: str, now: datetime, kind: str, step: int, channels: Iterable[str]) -> Factors:
        """Return the factors of a bundle for a kind of message and a step, of these channels.

        Raises
        ------
        StoreUnavailable: the sums cannot be read.
        """
        found = self._ask(version, now, lambda known, hour: known.factors(hour, kind, step))
        return {} if found is None else factors_of(found, channels)

    def corrections(self, version: str, now: datetime) -> list[Correction]:
        """Return what the sums of a bundle come to, by stage and channel.

        Raises
        ------
        StoreUnavailable: the sums cannot be read.
        """
        return self._ask(version, now, lambda known, hour: known.corrections(hour)) or []

    def _ask(self, version: str, now: datetime, question: Callable[[Corrections, int], T]) -> T | None:
        """Ask what is known of a bundle at an hour; None where nothing is."""
        hour = epoch_hour(now)
        self._refresh(version, hour)
        with self._lock:
            known = self._known
            if known is None or known.version != version:
                return None
            return question(known.corrections, max(hour, known.hour))

    def book(self, unit: Unit, decision: Decision, row: DecisionRow) -> None:
        """Add what a decision's send is expected to do; the first of a day deletes sums that are too old to count."""
        hour = row.decide_time // _HOUR_MICROS
        if hour // 24 > self._forgot_day:
            unit.delete_statistics(hour - KEPT_HOURS)
            self._forgot_day = hour // 24
        book(unit, decision, row)

    def _refresh(self, version: str, hour: int) -> None:
        """Read the sums where it is time to and no other thread does."""
        with self._lock:
            known = self._known
            is_due = (
                known is None
                or known.version != version
                or hour > known.hour
                or self._seconds() - known.read_seconds >= self._poll_seconds
            )
            if not is_due or self._is_reading:
                return
            self._is_reading = True
        try:
            is_other_day = known is not None and hour // 24 > known.day
            if known is None or known.version != version or (is_other_day and not self._is_aside):
                self._read_all(version, hour)
            else:
                self._read_new(known, max(hour, known.hour))
                if is_other_day:
                    self._read_all_aside(version, hour)
        finally:
            with self._lock:
                self._is_reading = False

    def close(self) -> None:
        """Wait for what is being read."""
        if self._aside is not None:
            self._aside.join()

    def _read_all_aside(self, version: str, hour: int) -> None:
        """Read all sums in a thread of its own; where that fails, the next reading tries again."""
        if self._aside is not None and self._aside.is_alive():
            return

        def read() -> None:
            with contextlib.suppress(StoreUnavailable):
                found = self._all(version, hour)
                with self._lock:
                    if self._known is not None and self._known.version == version:  # else another bundle serves by now
                        self._known = found

        self._aside = threading.Thread(target=read, name="learner")
        self._aside.start()

    def _read_all(self, version: str, hour: int) -> None:
        found = self._all(version, hour)
        with self._lock:
            self._known = found

    def _all(self, version: str, hour: int) -> _Known:
        began = self._seconds()
        found = self._store.read(lambda reader: reader.list_statistics(version, hour - KEPT_HOURS, hour))
        corrections = Corrections(version)
        corrections.add(found)
        return _Known(
            version=version,
            corrections=corrections,
            sums=dict(found),
            hour=hour,
            day=hour // 24,
            read_seconds=began,
        )

    def _read_new(self, known: _Known, hour: int) -> None:
        began = self._seconds()
        since = known.hour - _CHANGING_HOURS
        found = self._store.read(lambda reader: reader.list_statistics(known.version, since, hour))
        fresh = [(cell, sums) for cell, sums in found if sums != known.sums.get(cell)]
        added = [(cell, sums - known.sums.get(cell, Sums())) for cell, sums in fresh]
        with self._lock:
            known.corrections.add(added)
            known.sums.update(fresh)
            known.hour, known.read_seconds = hour, began
