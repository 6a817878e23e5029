"""Training data out of a decision log: features as used when the decision was made, labels from what happened after.

The label of a decision is whether its customer ordered within the window after it, through whatever channel and whatever the order
was credited to: only so is no send a fair baseline. Decisions that are not trainable are left out, and those whose window is still open are kept
apart: nobody knows yet whether an order follows, but what was seen and clicked so far is known, and for how long it was watched.

A send that was not made since its customer had ordered before it stays in: a no send in the same place would have kept that order, so leaving
these decisions out would take orders from sends alone, and the later a send the more of them.

A log is read in chunks, so that nothing but the data set itself grows with it; a longer one than asked for is read for some of its customers, all of whose decisions are taken.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from models.context import FeatureValue
from models.correction import REPORT_HOURS
from models.errors import LogUnusable
from models.features import BUILT_IN, CUSTOM_PREFIX, FEATURES, NO_SEND, Column, Encoder, category_name
from models.record import features_from_json, from_micros, to_micros
from service.store.engine import asking
from service.store.url import describe, is_postgres, parse_url
from training.broken import UNREADABLE, unreadable

FloatArray = NDArray[np.float64]
ActiveHours = tuple[tuple[int, ...], ...]
_RARE = 5
_CHUNK = 10_000
_SHARP = 4
"""Characters of customers' keys by which samples are cut."""

_NEWEST = """
SELECT max(t) FROM (SELECT max(decide_time) t FROM decisions UNION ALL SELECT max(occur_time) FROM outcomes) newest
"""
DATASET_QUERY = """
SELECT d.decision_id, d.step, d.decide_time, d.channel, d.propensity, d.price_micros, d.order_margin_micros, d.features,
  (SELECT count(*) FROM outcomes o WHERE o.customer_key = d.customer_key AND o.occur_time > d.decide_time
     AND o.occur_time <= d.decide_time + :window AND o.type IN ('order', 'store_purchase')
     AND NOT o.machine_generated),
  (SELECT sum(CASE o.type WHEN 'return' THEN -1 ELSE 1 END * coalesce(o.value_micros, d.order_margin_micros))
     FROM outcomes o WHERE o.customer_key = d.customer_key
     AND o.occur_time > d.decide_time AND o.occur_time <= d.decide_time + :window
     AND (o.type IN ('order', 'store_purchase') OR o.type = 'return' AND EXISTS (SELECT 1 FROM outcomes b
       WHERE b.customer_key = o.customer_key AND b.decision_id = o.decision_id AND b.step = o.step
       AND b.type IN ('order', 'store_purchase') AND b.occur_time > d.decide_time AND b.occur_time <= o.occur_time))
     AND NOT o.machine_generated),
  EXISTS (SELECT 1 FROM outcomes o WHERE o.decision_id = d.decision_id AND o.step = d.step
     AND o.type IN ('unsubscribe', 'complaint') AND NOT o.machine_generated
     AND o.occur_time >= d.decide_time AND o.occur_time <= :as_of),
  (SELECT min(o.occur_time) FROM outcomes o WHERE o.decision_id = d.decision_id AND o.step = d.step
     AND o.type = 'clicked' AND NOT o.machine_generated AND o.occur_time >= d.decide_time
     AND o.occur_time <= d.decide_time + :window AND o.occur_time <= :as_of),
  (SELECT min(o.occur_time) FROM outcomes o WHERE o.decision_id = d.decision_id AND o.step = d.step
     AND o.type IN ('seen', 'opened', 'clicked', 'unsubscribe', 'complaint') AND NOT o.machine_generated
     AND o.occur_time >= d.decide_time AND o.occur_time <= d.decide_time + :window AND o.occur_time <= :as_of),
  EXISTS (SELECT 1 FROM outcomes o WHERE o.decision_id = d.decision_id AND o.step = d.step AND o.type = 'undelivered'
     AND o.occur_time <= :as_of),
  d.send_time, d.customer_key, d.context, NOT d.trainable
FROM decisions d
WHERE {rows} AND {closed}
ORDER BY d.decide_time, d.decision_id, d.step
"""
TRAINABLE = """(d.trainable OR d.send_time IS NOT NULL AND EXISTS (SELECT 1 FROM outcomes n JOIN outcomes o ON o.customer_key = d.customer_key
     WHERE n.decision_id = d.decision_id AND n.step = d.step AND n.type = 'not_sent' AND o.type IN ('order', 'store_purchase')
     AND o.occur_time > d.decide_time AND o.occur_time <= n.occur_time AND n.occur_time <= :as_of AND NOT o.machine_generated))"""
"""Decisions that are learned from."""
DECIDED = """(d.trainable OR EXISTS (SELECT 1 FROM outcomes n
     WHERE n.decision_id = d.decision_id AND n.step = d.step AND n.type = 'not_sent'))"""
"""Decisions that are judged by: those too that were not sent in the end, since an order often is why."""
CLOSED = "d.mode = 'live' AND d.context != '' AND d.decide_time < :until AND d.decide_time + :least <= :as_of"
"""Decisions whose outcomes have been watched for long enough, and whose person was not erased."""
_NEXT = "SELECT d.decide_time FROM decisions d WHERE {closed} AND d.decide_time >= :begin ORDER BY d.decide_time LIMIT 1 OFFSET :chunk"
_FEATURES = "SELECT d.decision_id, d.step, d.features FROM decisions d WHERE {rows} AND {closed}"
_BY_KEY = """
SELECT substr(d.customer_key, 1, {sharp}) part, count(*) FROM decisions d WHERE {rows} AND {closed} GROUP BY 1 ORDER BY 1
"""
_IN_SAMPLE = "substr(d.customer_key, 1, {sharp}) < :before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some customers of a log with all their decisions: those whose keys come first. Keys are hashes, so that this is as good as drawn."""

    before: str
    """Keys that begin with this, or with what comes after it, are left out."""
    decisions: int
    of: int
    """Decisions of all customers."""

    @property
    def text(self) -> str:
        """Say what was taken."""
        return (
            f"{self.decisions:,} of {self.of:,} decisions are taken, all those of {self.decisions / self.of:.0%} of the customers; "
            "--most-decisions takes more"
        )


def cut_sample(counts: Iterable[tuple[str, int]], most: int) -> Sample | None:
    """Return a sample of at most so many decisions, None where all are; `counts` are of decisions by how customers' keys begin, in that order.

    Raises
    ------
    LogUnusable: those of the first ones alone are more.
    """
    taken, total, before = 0, 0, None
    for part, count in counts:
        total += count
        if before is None and total > most:
            before = part
        if before is None:
            taken = total
    if before is None:
        return None
    if not taken:
        raise LogUnusable(f"--most-decisions {most} is too few to hold even some of the customers whole; name more")
    return Sample(before=before, decisions=taken, of=total)


def key_part(keys: pa.Array) -> pa.Array:
    """Return how customers' keys begin, as samples are cut."""
    return pc.utf8_slice_codeunits(keys, 0, _SHARP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Decisions in order of time. Arrays have shape (n,); `matrix` (n, n_columns) is encoded by `columns`."""

    columns: tuple[Column, ...]
    matrix: FloatArray
    decide_time: NDArray[np.int64]
    channel: NDArray[np.str_]
    propensity: FloatArray
    """P(logged action | context) under the logging policy, in (0, 1]."""
    price: FloatArray
    """What the logged action cost, in units of the currency; 0 where it was cancelled."""
    response: FloatArray
    """1 where the customer ordered within the window, else 0."""
    value: FloatArray
    """Margin of those orders less that of those among them that came back within the window, in units of the currency."""
    unsubscribed: FloatArray
    clicked: FloatArray
    """1 where the customer clicked in this message within the window."""
    seen: FloatArray
    """1 where the customer saw, opened, clicked or refused this message within the window; machines' opens do not count."""
    delivered: FloatArray
    """0 where the send was reported as undelivered or was not made, else 1."""
    cancelled: FloatArray
    """1 where the send was not made since the customer had ordered before it, else 0."""
    send_hours: FloatArray
    """Hours from 1970 to the send, nan for no send."""
    seen_hours: FloatArray
    """Hours from the send until it was first seen, opened, clicked or refused, nan where it was not."""
    clicked_hours: FloatArray
    """Hours from the send to the first click, nan where there was none."""
    begin_hours: FloatArray
    """Hours from 1970 to the message's earliest time, from which its relevance decays."""
    expire_hours: FloatArray
    """Hours from 1970 to the message's expiry."""
    half_life_hours: FloatArray
    """Half-life of the message's relevance, inf where it keeps its worth."""
    customer: NDArray[np.str_]
    """Key of the person."""
    time_zone: NDArray[np.str_]
    watched_hours: FloatArray
    """How long after the decision its outcomes were read: the window, or less where it is still open."""
    active_hours: tuple[tuple[int, ...], ...]
    """Hours since 1970 in which the customer was active before the decision, as serving knew them."""
    digest: str
    """sha256 of all of the above; of who the customers are, only which decisions are of one."""
    window_hours: float = math.inf
    """How long after a decision its outcomes were read; sends late in the window were watched for less."""
    early: "Dataset | None" = None
    """The decisions whose window is still open, all later than these; their `response` and `value` are not known."""
    sample: Sample | None = None
    """Which customers these are of, where they are not of all."""

    def __len__(self) -> int:
        return len(self.response)

    def take(self, mask: NDArray[np.bool_]) -> "Dataset":
        """Return the decisions for which the mask is true."""
        arrays: dict[str, Any] = {name: getattr(self, name)[mask] for name in _ARRAYS}
        active = tuple(self.active_hours[i] for i in np.flatnonzero(mask))
        return replace(self, active_hours=active, early=None, **arrays)

    def cut(self, closed: int) -> "Dataset":
        """Return the first so many, whose window is closed, with the others as `early`. Nothing is copied."""
        if closed == len(self):
            return self
        parts = [
            replace(self, active_hours=self.active_hours[rows], **{name: getattr(self, name)[rows] for name in _ARRAYS})
            for rows in (slice(closed), slice(closed, None))
        ]
        return replace(parts[0], early=parts[1])

    def with_early(self) -> "Dataset":
        """Return these decisions, and after them those whose window is still open."""
        if self.early is None:
            return self
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(self.early, name)]) for name in _ARRAYS
        }
        return replace(self, early=None, active_hours=(*self.active_hours, *self.early.active_hours), **arrays)


_ARRAYS = (
    "matrix",
    "decide_time",
    "channel",
    "propensity",
    "price",
    "response",
    "value",
    "unsubscribed",
    "clicked",
    "seen",
    "delivered",
    "cancelled",
    "send_hours",
    "seen_hours",
    "clicked_hours",
    "begin_hours",
    "expire_hours",
    "half_life_hours",
    "customer",
    "time_zone",
    "watched_hours",
)
_REPORT = timedelta(hours=REPORT_HOURS)


def find_log(url: str) -> str:
    """Return what a decision log is called in messages.

    Raises
    ------
    LogUnusable: it would be a file, and there is none.
    """
    parsed = parse_url(url)
    if not is_postgres(parsed) and not Path(str(parsed.database)).is_file():
        raise LogUnusable(f"there is no decision log {parsed.database}; import or simulate one, or mend --log")
    return describe(parsed)


def name_log(url: str) -> str:
    """Return what a log is called where it is kept or printed: a database without its password, a folder of files as it is."""
    return url if Path(url).is_dir() else describe(parse_url(url))


def short_name(log: str) -> str:
    """Return a log's own name, without where it is: a bundle holds this one, so that the same data give the same bytes wherever they lie."""
    return log.rpartition("/")[2].partition("?")[0]


def limits(
    connection: Connection, name: str, window: timedelta, until: datetime | None, as_of: datetime | None
) -> tuple[int, dict[str, int]]:
    """Return the time of a log's newest entry, and the values that CLOSED asks for, in microseconds.

    Raises
    ------
    LogUnusable: the log is empty.
    """
    newest = connection.execute(text(_NEWEST)).scalar()
    if newest is None:
        raise LogUnusable(f"the decision log {name} is empty; import or simulate one")
    span = window // timedelta(microseconds=1)
    complete = newest if as_of is None else to_micros(as_of)
    limit = newest + 1 if until is None else to_micros(until)
    return newest, {"window": span, "as_of": complete, "until": limit, "least": span}


def read_dataset(
    url: str,
    window: timedelta,
    until: datetime | None = None,
    exclude: Sequence[str] = (),
    as_of: datetime | None = None,
    *,
    with_early: bool = False,
    which: str = TRAINABLE,
    most: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Dataset:
    """Read the decisions made before `until` whose window is closed; `exclude` names features to leave out, `which` is TRAINABLE or DECIDED.

    A window is closed where it ends by `as_of`, the time until which the log is complete: by default that of its newest entry. With `with_early`
    those of open windows are read too, as far as an hour before then, since what happened in that hour may not have been reported. Where there are more
    than `most`, those of some customers are read.

    Raises
    ------
    LogUnusable: nothing is left to learn from, or a propensity is not in (0, 1]; it says what is missing.
    """
    name = find_log(url)
    with asking(url) as connection:
        newest, asked = limits(connection, name, window, until, as_of)
        if with_early:
            asked["least"] = min(asked["window"], _REPORT // timedelta(microseconds=1))
        wanted = choose_rows(connection, asked, which, most)
        seen, counts = _count_features(connection, wanted)
        check_excluded(seen, exclude)
        columns = make_columns(seen, counts, exclude)
        read = _Read(Encoder(columns), asked, window)
        for rows in chunks(connection, wanted):
            read.add(rows)
            progress(len(rows))
    if not read.closed:
        raise LogUnusable(nothing_closed(name, window, newest))
    data = assemble(columns, *read.join())
    return replace(data, window_hours=window / timedelta(hours=1), sample=wanted.sample).cut(read.closed)


def nothing_closed(name: str, window: timedelta, newest: int) -> str:
    """Say that nothing of a log can be learned from yet."""
    return (
        f"no trainable decision of {name} has its window of {window} closed; its newest entry is of "
        f"{from_micros(newest):%Y-%m-%d %H:%M} UTC; if it is complete until a later time, say so with --as-of"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which decisions of a log are read."""

    rows: str
    """TRAINABLE or DECIDED."""
    closed: str
    """CLOSED, within the sample."""
    asked: dict[str, Any]
    """The values that these ask for."""
    sample: Sample | None


def choose_rows(connection: Connection, asked: dict[str, int], which: str, most: int | None) -> Wanted:
    """Return which decisions to read: of all customers, or of some where there are more than `most` decisions."""
    sample = None
    if most is not None and int(connection.execute(text("SELECT count(*) FROM decisions")).scalar_one()) > most:
        query = text(_BY_KEY.format(rows=which, closed=CLOSED, sharp=_SHARP))
        sample = cut_sample(((str(part), int(count)) for part, count in connection.execute(query, asked)), most)
    return wanted_rows(asked, which, sample)


def wanted_rows(asked: dict[str, int], which: str, sample: Sample | None) -> Wanted:
    """Return which decisions are those of a sample, or of all customers where it is None."""
    if sample is None:
        return Wanted(rows=which, closed=CLOSED, asked=dict(asked), sample=None)
    within = f"{CLOSED} AND {_IN_SAMPLE.format(sharp=_SHARP)}"
    return Wanted(rows=which, closed=within, asked={**asked, "before": sample.before}, sample=sample)


def chunks(connection: Connection, wanted: Wanted) -> Iterator[list[tuple[object, ...]]]:
    """Yield the rows of the query in order of time; decisions of one moment are in one chunk."""
    asked = wanted.asked
    begin, limit = 0, asked["until"]
    following = text(_NEXT.format(closed=wanted.closed))
    query = text(DATASET_QUERY.format(rows=wanted.rows, closed=f"{wanted.closed} AND d.decide_time >= :begin"))
    while begin < limit:
        found = connection.execute(following, {**asked, "begin": begin, "chunk": _CHUNK}).scalar()
        # One moment may hold more than a chunk: then it ends with the next one.
        end = limit if found is None else max(int(found), begin + 1)
        rows = [tuple(row) for row in connection.execute(query, {**asked, "begin": begin, "until": end})]
        if rows:
            yield rows
        begin = end


def read_features(connection: Connection, wanted: Wanted) -> Iterator[dict[str, FeatureValue]]:
    """Yield the features of decisions, in no order.

    Raises
    ------
    LogUnusable: those of one cannot be read.
    """
    query = text(_FEATURES.format(rows=wanted.rows, closed=wanted.closed))
    for decision_id, step, body in connection.execution_options(yield_per=_CHUNK).execute(query, wanted.asked):
        try:
            values = features_from_json(str(body))
        except UNREADABLE as error:
            raise unreadable(decision_id, step, "features", error) from error
        yield values


def _count_features(connection: Connection, wanted: Wanted) -> tuple[set[str], dict[str, Counter[str]]]:
    """Return the names of all features, and of those that are text somewhere how often each value is there."""
    seen: set[str] = set()
    counts: dict[str, Counter[str]] = {}
    is_late = False
    for values in read_features(connection, wanted):
        for name, value in values.items():
            if isinstance(value, str) and name not in counts:
                is_late = is_late or name in seen  # numbers of it were passed over
                counts[name] = Counter()
            if name in counts:
                counts[name][category_name(value)] += 1
            seen.add(name)
    if is_late:
        counts = {name: Counter() for name in counts}
        for values in read_features(connection, wanted):
            for name in values.keys() & counts.keys():
                counts[name][category_name(values[name])] += 1
    return seen, counts


class _Read:
    """What has been read of a log, chunk by chunk."""

    def __init__(self, encoder: Encoder, asked: Mapping[str, int], window: timedelta) -> None:
        self._encoder, self._asked, self._hours = encoder, asked, window / timedelta(hours=1)
        self._matrix: list[FloatArray] = []
        self._arrays: dict[str, list[NDArray[Any]]] = {}
        self._active: list[tuple[int, ...]] = []
        self._known: dict[int, int] = {}
        self.closed = 0

    def add(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Keep what a data set has of these rows."""
        is_closed, watched = watched_hours(rows, self._asked, self._hours)
        self.closed += int(is_closed.sum())
        features = (features_from_json(str(row[7])) for row in rows)
        self._matrix.append(np.array([self._encoder.encode_values(values) for values in features]))
        arrays, active = arrays_of(rows, watched)
        for name, array in arrays.items():
            self._arrays.setdefault(name, []).append(array)
        # Each hour is one object, however many lists it is in.
        self._active += (tuple(self._known.setdefault(hour, hour) for hour in hours) for hours in active)

    def join(self) -> tuple[FloatArray, dict[str, NDArray[Any]], ActiveHours]:
        """Return the matrix, the arrays and the active hours of all rows, and forget them."""
        matrix = join(self._matrix)
        arrays = {name: join(self._arrays.pop(name)) for name in list(self._arrays)}
        return matrix, arrays, tuple(self._active)


def join(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return parts as one array, without a copy where it is one already, and forget them."""
    found = parts[0] if len(parts) == 1 else np.concatenate(parts)
    parts.clear()
    return found


def watched_hours(
    rows: Sequence[tuple[object, ...]], asked: Mapping[str, int], window_hours: float
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return of rows of the query whether their window is closed, and for how many hours they were watched; shapes (n,)."""
    moments = [int(str(row[2])) for row in rows]
    is_closed = np.array([moment + asked["window"] <= asked["as_of"] for moment in moments])
    known = np.array([(asked["as_of"] - moment) / 3.6e9 - REPORT_HOURS for moment in moments])
    return is_closed, np.where(is_closed, window_hours, known)


def assemble(columns: tuple[Column, ...], matrix: FloatArray, arrays: dict[str, Any], active: ActiveHours) -> Dataset:
    """Put a data set together; `arrays` are those of `arrays_of`. Columns in which nothing varies are left out."""
    columns, matrix = _without_constant(columns, matrix)
    digest = hashlib.sha256(f"({columns!r}, (".encode())
    for place, hours in enumerate(active):  # piece by piece: as one text it would be larger than the data
        digest.update(f"{', ' if place else ''}{hours!r}".encode())
    digest.update(b",))" if len(active) == 1 else b"))")
    numbers = [array for name, array in arrays.items() if name not in ("channel", "customer", "time_zone")]
    for array in (matrix, arrays["channel"], *numbers, arrays["time_zone"], _by_appearance(arrays["customer"])):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Dataset(columns=columns, matrix=matrix, digest=digest.hexdigest(), active_hours=active, **arrays)


def arrays_of(rows: Sequence[tuple[object, ...]], watched_hours: FloatArray) -> tuple[dict[str, Any], ActiveHours]:
    """Return the arrays of a data set, but its matrix, of rows of the query, each of shape (n,), and the active hours of the customers.

    Raises
    ------
    LogUnusable: a propensity is not in (0, 1], or a context cannot be read.
    """
    contexts = [_of_row(row) for row in rows]
    arrays: dict[str, Any] = {
        "channel": np.array([str(row[3]) for row in rows]),
        "customer": np.array([str(row[15]) for row in rows]),
        "time_zone": np.array([of.time_zone for of in contexts]),
        "decide_time": np.array([row[2] for row in rows], dtype=np.int64),
        "propensity": np.array([row[4] for row in rows], dtype=np.float64),
        "price": np.array([0 if row[17] else row[5] for row in rows], dtype=np.float64) / 1e6,
        "response": np.array([row[8] for row in rows], dtype=np.float64).clip(max=1.0),
        "value": np.array([row[9] or 0 for row in rows], dtype=np.float64) / 1e6,
        "unsubscribed": np.array([row[10] for row in rows], dtype=np.float64),
        "clicked": np.array([row[11] is not None for row in rows], dtype=np.float64),
        "seen": np.array([row[12] is not None for row in rows], dtype=np.float64),
        "delivered": np.array([not (row[13] or row[17]) for row in rows], dtype=np.float64),
        "cancelled": np.array([row[17] for row in rows], dtype=np.float64),
        "watched_hours": watched_hours,
        **_times(rows, contexts),
    }
    propensity = arrays["propensity"]
    if not np.all((propensity > 0) & (propensity <= 1)):
        bad = rows[int(np.flatnonzero(~((propensity > 0) & (propensity <= 1)))[0])]
        raise LogUnusable(
            f"decision {bad[0]} step {bad[1]} has propensity {bad[4]}, which is not in (0, 1]; mend the log"
        )
    return arrays, tuple(of.active_hours for of in contexts)


class _OfContext(NamedTuple):
    """What a data set has of a context."""

    time_zone: str
    active_hours: tuple[int, ...]
    begin_hours: float
    expire_hours: float
    half_life_hours: float


def _of_row(row: Sequence[object]) -> _OfContext:
    try:
        return _of_context(str(row[16]))
    except UNREADABLE as error:
        raise unreadable(row[0], row[1], "context", error) from error


def _of_context(text: str) -> _OfContext:
    context = json.loads(text)
    customer, message = context["customer"], context["message"]
    half_life = message.get("relevance_half_life_seconds")
    return _OfContext(
        time_zone=str(customer["time_zone"]),
        active_hours=tuple(customer.get("active_hours", ())),
        begin_hours=_hour_of(message["earliest_time"]),
        expire_hours=_hour_of(message["expire_time"]),
        half_life_hours=math.inf if half_life is None else float(half_life) / 3600,
    )


def _by_appearance(keys: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the number of each key by when it first appears: who is who, whatever they are called; shape (n,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(str(key), len(numbers)) for key in keys], dtype=np.intp)


def _times(rows: Sequence[tuple[object, ...]], contexts: Sequence[_OfContext]) -> dict[str, FloatArray]:
    """Return when each message was sent, seen and clicked, and how long it is worth something."""
    send = _hours([row[14] for row in rows])
    return {
        "send_hours": send,
        "seen_hours": np.maximum(_hours([row[12] for row in rows]) - send, 0.0),
        "clicked_hours": np.maximum(_hours([row[11] for row in rows]) - send, 0.0),
        "begin_hours": np.array([of.begin_hours for of in contexts]),
        "expire_hours": np.array([of.expire_hours for of in contexts]),
        "half_life_hours": np.array([of.half_life_hours for of in contexts]),
    }


def _hours(micros: Sequence[object]) -> FloatArray:
    return np.array([np.nan if x is None else x for x in micros], dtype=np.float64) / 3.6e9


def _hour_of(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() / 3600


def check_excluded(seen: Collection[str], exclude: Sequence[str]) -> None:
    """Check that features to leave out are in the log, or at least in the list.

    Raises
    ------
    LogUnusable: one is not.
    """
    for name in exclude:
        if name not in seen and name not in BUILT_IN:
            raise LogUnusable(f"the log has no feature {name} to leave out; it has {', '.join(sorted(seen))}")


def find_columns(features: Sequence[dict[str, FeatureValue]], exclude: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return the columns of a log: those of the feature list, then the callers' own by name.

    A feature of the callers is a category where any of its values is text; numbers among them are categories too. Categories seen less
    than 5 times are left out, so that the model learns what an unseen one does.
    """
    seen = {name for values in features for name in values}
    texts = {name for values in features for name, value in values.items() if isinstance(value, str)}
    counts: dict[str, Counter[str]] = {name: Counter() for name in texts}
    for values in features:
        for name in values.keys() & texts:
            counts[name][category_name(values[name])] += 1
    return make_columns(seen, counts, exclude)


def make_columns(
    seen: Iterable[str], counts: Mapping[str, Mapping[str, int]], exclude: Sequence[str]
) -> tuple[Column, ...]:
    """Return the columns of the features seen, of which those with counts of their values are categories.

    Raises
    ------
    LogUnusable: a number of the feature list is text in the log.
    """
    known = set(seen)
    names = [f.name for f in FEATURES if f.name in known] + sorted(n for n in known if n.startswith(CUSTOM_PREFIX))
    columns: list[Column] = []
    for name in names:
        if name in exclude:
            continue
        if name in counts:
            if name in BUILT_IN and BUILT_IN[name].kind == "number":
                other = next((value for value in sorted(counts[name]) if not is_number(value)), "")
                raise LogUnusable(
                    f"feature {name} is a number by the feature list, but text such as {other!r} in the log; "
                    f"mend the column features of decisions, or leave it out with --exclude {name}"
                )
            kept = sorted(value for value, count in counts[name].items() if count >= _RARE or name == "channel")
            columns.append(Column(name=name, kind="category", categories=tuple(kept)))
        else:
            columns.append(Column(name=name, kind="number"))
    return tuple(columns)


def is_number(text: str) -> bool:
    """Tell whether a category is a number, spelled out."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_constant(columns: tuple[Column, ...], matrix: FloatArray) -> tuple[tuple[Column, ...], FloatArray]:
    """Leave out columns in which nothing varies; the channel stays."""
    kept = [
        i
        for i, column in enumerate(columns)
        if column.name == "channel" or len(np.unique(matrix[:, i], equal_nan=True)) > 1
    ]
    if len(kept) == len(columns):
        return columns, matrix
    return tuple(columns[i] for i in kept), np.ascontiguousarray(matrix[:, kept])


def check_learnable(data: Dataset) -> None:
    """Check that a response model can be fitted.

    Raises
    ------
    LogUnusable: too few decisions, nobody or everybody ordered, no decision with a send, or none without one to compare with.
    """
    orders = int(data.response.sum())
    if len(data) < 200:
        raise LogUnusable(f"{len(data)} decisions are too few to learn from; at least 200 are needed")
    if min(orders, len(data) - orders) < 20:
        raise LogUnusable(
            f"{orders} of {len(data)} decisions were followed by an order; at least 20 of each kind are needed; "
            "give orders as outcomes of their customers, a longer --window-hours, or more decisions"
        )
    if not (data.channel != NO_SEND).any():
        raise LogUnusable("no decision of the log is a send; there is nothing to learn about any channel")
    if not (data.channel == NO_SEND).any():
        raise LogUnusable("no decision of the log is a no send; without them the effect of a send cannot be told")
