"""Training data out of a decision log: features as used when the decision was made, labels from what happened after.

The label of a decision is whether its customer ordered within the window after it, through whatever channel and whatever the order
was credited to: only so is no send a fair baseline. Decisions that are not trainable are left out, and those whose window is still open are kept
apart: nobody knows yet whether an order follows, but what was seen and clicked so far is known, and for how long it was watched.

A send that was not made since its customer had ordered before it stays in: a no send in the same place would have kept that order, so leaving
these decisions out would take orders from sends alone, and the later a send the more of them.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from models.context import FeatureValue
from models.correction import REPORT_HOURS
from models.errors import LogUnusable
from models.features import BUILT_IN, CUSTOM_PREFIX, FEATURES, NO_SEND, Column, Encoder, category_name
from models.record import features_from_json, from_micros, to_micros
from service.store.engine import asking, describe, is_postgres, parse_url

FloatArray = NDArray[np.float64]
ActiveHours = tuple[tuple[int, ...], ...]
_RARE = 5

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

    def __len__(self) -> int:
        return len(self.response)

    def take(self, mask: NDArray[np.bool_]) -> "Dataset":
        """Return the decisions for which the mask is true."""
        arrays: dict[str, Any] = {name: getattr(self, name)[mask] for name in _ARRAYS}
        active = tuple(self.active_hours[i] for i in np.flatnonzero(mask))
        return Dataset(
            columns=self.columns, digest=self.digest, active_hours=active, window_hours=self.window_hours, **arrays
        )

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
) -> Dataset:
    """Read the decisions made before `until` whose window is closed; `exclude` names features to leave out, `which` is TRAINABLE or DECIDED.

    A window is closed where it ends by `as_of`, the time until which the log is complete: by default that of its newest entry. With `with_early`
    those of open windows are read too, as far as an hour before then, since what happened in that hour may not have been reported.

    Raises
    ------
    LogUnusable: nothing is left to learn from, or a propensity is not in (0, 1]; it says what is missing.
    """
    name = find_log(url)
    with asking(url) as connection:
        newest, asked = limits(connection, name, window, until, as_of)
        complete, span = asked["as_of"], asked["window"]
        if with_early:
            asked["least"] = min(span, _REPORT // timedelta(microseconds=1))
        rows = [tuple(row) for row in connection.execute(text(DATASET_QUERY.format(rows=which, closed=CLOSED)), asked)]
    closed = sum(row[2] + span <= complete for row in rows)
    if not closed:
        raise LogUnusable(
            f"no trainable decision of {name} has its window of {window} closed; its newest entry is of "
            f"{from_micros(newest):%Y-%m-%d %H:%M} UTC; if it is complete until a later time, say so with --as-of"
        )
    hours = window / timedelta(hours=1)
    known = np.array([(complete - row[2]) / 3.6e9 - REPORT_HOURS for row in rows])
    is_closed = np.arange(len(rows)) < closed
    data = replace(_encode(rows, exclude, np.where(is_closed, hours, known)), window_hours=hours)
    return data if closed == len(rows) else replace(data.take(is_closed), early=data.take(~is_closed))


def _encode(rows: Sequence[tuple[object, ...]], exclude: Sequence[str], watched_hours: FloatArray) -> Dataset:
    features = [features_from_json(str(row[7])) for row in rows]
    check_excluded({name for values in features for name in values}, exclude)
    columns = find_columns(features, exclude)
    encoder = Encoder(columns)
    matrix = np.array([encoder.encode_values(values) for values in features])
    return assemble(columns, matrix, *arrays_of(rows, watched_hours))


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
    LogUnusable: a propensity is not in (0, 1].
    """
    contexts = [_of_context(str(row[16])) for row in rows]
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
    """Return the columns of the features seen, of which those with counts of their values are categories."""
    known = set(seen)
    names = [f.name for f in FEATURES if f.name in known] + sorted(n for n in known if n.startswith(CUSTOM_PREFIX))
    columns: list[Column] = []
    for name in names:
        if name in exclude:
            continue
        if name in counts:
            kept = sorted(value for value, count in counts[name].items() if count >= _RARE or name == "channel")
            columns.append(Column(name=name, kind="category", categories=tuple(kept)))
        else:
            columns.append(Column(name=name, kind="number"))
    return tuple(columns)


def _without_constant(columns: tuple[Column, ...], matrix: FloatArray) -> tuple[tuple[Column, ...], FloatArray]:
    """Leave out columns in which nothing varies; the channel stays."""
    kept = [
        i
        for i, column in enumerate(columns)
        if column.name == "channel" or len(np.unique(matrix[:, i], equal_nan=True)) > 1
    ]
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
