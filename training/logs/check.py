"""Checks batches of a log's files and brings their columns to one form each.

Times become microseconds since 1970 in UTC, money micros of the rules' currency, ids text, numbers doubles, channels lists of text.
Everything works on whole columns: a log of millions of rows is checked in seconds.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.features import NO_SEND
from models.local_time import zone
from models.prices import find_price
from models.record import from_micros, to_micros
from models.rules import Category, Rules
from training.logs.mistakes import Mistakes, Places
from training.logs.schema import FEATURE_PREFIX, TYPES, Field, Kind, Schema

BoolArray = NDArray[np.bool_]
_EARLIEST = to_micros(datetime(2000, 1, 1, tzinfo=UTC))
_LATEST = to_micros(datetime(2100, 1, 1, tzinfo=UTC))
_SCALES = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}
_LONGEST = 60 * 24 * 3_600_000_000
"""Microseconds that a message lives at most, as in the contract."""
_FEATURE_NAME = re.compile(r"[a-z0-9_.]{1,64}")
_MOST_FEATURES = 64
_MOST_FEATURE_TEXT = 128


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


_ACCEPTED: Mapping[Kind, Callable[[pa.DataType], bool]] = {
    "text": _is_text,
    "id": lambda kind: _is_text(kind) or bool(pa.types.is_integer(kind)),
    "time": lambda kind: bool(pa.types.is_timestamp(kind) and kind.tz is not None),
    "money": _is_number,
    "number": _is_number,
    "whole": lambda kind: bool(pa.types.is_integer(kind)),
    "flag": lambda kind: bool(pa.types.is_boolean(kind)),
    "channels": lambda kind: _is_list(kind) and _is_text(kind.value_type),
    "prices": lambda kind: bool(pa.types.is_map(kind) and _is_text(kind.key_type) and _is_number(kind.item_type)),
}
FORMS: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "id": pa.string(),
    "time": pa.int64(),
    "money": pa.int64(),
    "number": pa.float64(),
    "whole": pa.int64(),
    "flag": pa.bool_(),
    "channels": pa.list_(pa.string()),
    "prices": pa.map_(pa.string(), pa.float64()),
}
"""What a column of each kind becomes."""


def feature_form(kind: pa.DataType) -> pa.DataType | None:
    """Return what a column of the caller's own features becomes; None where it cannot be one."""
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if _is_number(kind):
        return pa.float64()
    return pa.string() if _is_text(kind) else None


def check_columns(found: pa.Schema, schema: Schema, name: str, mistakes: Mistakes) -> pa.Schema:
    """Check which columns a file has; return those that can be used, in the form that they get."""
    used: list[pa.Field] = []
    known = {field.name: field for field in schema.fields}
    for column in found:
        expected = known.get(column.name)
        if expected is not None:
            if _ACCEPTED[expected.kind](column.type) or pa.types.is_null(column.type):
                used.append(pa.field(column.name, FORMS[expected.kind]))
            else:
                mistakes.add(name, f"column {column.name}", _wrong_type(column.type, expected.kind))
        elif schema.has_features and column.name.startswith(FEATURE_PREFIX):
            form = feature_form(column.type)
            feature = column.name.removeprefix(FEATURE_PREFIX)
            if not _FEATURE_NAME.fullmatch(feature):
                mistakes.add(
                    name, f"column {column.name}", "names of features are 1 to 64 of a-z, 0-9, _ and .; rename it"
                )
            elif form is not None:
                used.append(pa.field(column.name, form))
            elif not pa.types.is_null(column.type):
                mistakes.add(
                    name, f"column {column.name}", f"has type {column.type}; a feature is a number, a string or a bool"
                )
        else:
            mistakes.add(name, f"column {column.name}", _unknown(column.name, schema))
    for missing in schema.fields:
        if missing.is_required and missing.name not in found.names:
            mistakes.add(
                name, f"column {missing.name}", f"is missing; add it: {missing.meaning}, {TYPES[missing.kind]}"
            )
    if sum(1 for column in used if column.name.startswith(FEATURE_PREFIX)) > _MOST_FEATURES and schema.has_features:
        mistakes.add(name, f"columns {FEATURE_PREFIX}...", f"are more than {_MOST_FEATURES}; the service takes no more")
    return pa.schema(used)


def _wrong_type(kind: pa.DataType, expected: Kind) -> str:
    advice = "; the times are without a zone" if pa.types.is_timestamp(kind) else ""
    return f"has type {kind}{advice}; write {TYPES[expected]}"


def _unknown(name: str, schema: Schema) -> str:
    near = difflib.get_close_matches(name, [field.name for field in schema.fields], n=1, cutoff=0.75)
    own = f", or name it {FEATURE_PREFIX}{name} if it is a feature of your own" if schema.has_features else ""
    return f"is unknown; did you mean {near[0]}?" if near else f"is unknown; remove it{own}"


@dataclass(slots=True)
class BatchChecker:
    """Checks the batches of one file under some rules. `form` is what `check_columns` returned."""

    schema: Schema
    form: pa.Schema
    rules: Rules
    places: Places
    mistakes: Mistakes
    _priced: dict[tuple[str, str, str, date], bool] = field(default_factory=dict)

    def read(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """Return a batch in its form, after noting every mistake in it."""
        fields = {field.name: field for field in self.schema.fields}
        columns = []
        for column in self.form:
            array = _column(batch, column.name)
            expected = fields.get(column.name)
            if array is None or not _can_be_read(array.type, column.type, expected):
                columns.append(pa.nulls(len(batch), column.type))
            elif expected is None:
                columns.append(self._feature(array, column, first_row))
            else:
                columns.append(self._read(array, expected, first_row))
        read = pa.RecordBatch.from_arrays(columns, schema=self.form)
        if self.schema.has_features:
            self._check_decisions(read, first_row)
        return read

    def refuse(self, mask: BoolArray, array: pa.Array | None, column: str, first_row: int, advice: str) -> None:
        """Note the same mistake of every row for which the mask is true; its values are those of the array."""
        rows = np.flatnonzero(mask)
        if len(rows):
            values = None if array is None else [_shown(array[int(row)]) for row in rows[:5]]
            self.mistakes.add_rows(self.places, column, rows + first_row, values, advice)

    def _read(self, array: pa.Array, expected: Field, first_row: int) -> pa.Array:
        name, kind = expected.name, expected.kind
        if expected.is_required:
            self.refuse(_mask(pc.is_null(array)), None, name, first_row, f"is null; it is required: {expected.meaning}")
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), FORMS[kind])
        if kind == "time":
            return self._time(array, name, first_row)
        if kind in ("money", "number", "whole"):
            return self._number(array, expected, first_row)
        if kind in ("text", "id"):
            return self._text(array, expected, first_row)
        if kind == "channels":
            return self._channels(array, name, first_row)
        return self._prices(array, expected, first_row) if kind == "prices" else array

    def _time(self, array: pa.Array, name: str, first_row: int) -> pa.Array:
        raw = array.cast(pa.int64())
        values = raw.fill_null(0).to_numpy(zero_copy_only=False)
        unit = array.type.unit
        scale = _SCALES[unit]
        micros = values // 1000 if unit == "ns" else np.clip(values, -_LATEST // scale, _LATEST // scale) * scale
        is_bad = _mask(pc.is_valid(array)) & ~((micros >= _EARLIEST) & (micros < _LATEST))
        advice = f"{unit} since 1970 is not a time between 2000 and 2100; check its unit"
        self.refuse(is_bad, raw, name, first_row, advice)
        return pa.array(micros, mask=_mask(pc.is_null(array)))

    def _number(self, array: pa.Array, expected: Field, first_row: int) -> pa.Array:
        values = array.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
        is_null = _mask(pc.is_null(array))
        low, high = expected.least, expected.most
        is_bad = ~np.isfinite(values)
        if low is not None:
            is_bad |= (values <= low) if expected.is_above_least else (values < low)
        if high is not None:
            is_bad |= values > high
        is_bad &= ~is_null
        self.refuse(is_bad, array, expected.name, first_row, f"write {_range(expected)}, {_where_unknown(expected)}")
        kept = np.where(is_bad | is_null, 0.0, values)
        if expected.kind == "money":
            return pa.array(np.round(kept * 1e6).astype(np.int64), mask=is_null)
        return pa.array(kept.astype(np.int64) if expected.kind == "whole" else kept, mask=is_null)

    def _text(self, array: pa.Array, expected: Field, first_row: int) -> pa.Array:
        text = array.cast(pa.string())
        lengths = pc.fill_null(pc.utf8_length(text), 1).to_numpy(zero_copy_only=False)
        if expected.most is not None:
            advice = f"at most {expected.most:.0f} characters are allowed"
            self.refuse(lengths > expected.most, text, expected.name, first_row, advice)
        if expected.is_required or expected.kind == "id":
            self.refuse(
                lengths == 0, text, expected.name, first_row, f"write {expected.meaning}, {_where_unknown(expected)}"
            )
        if expected.allowed:
            is_bad = ~_mask(pc.is_in(text, pa.array(expected.allowed))) & _mask(pc.is_valid(text))
            self.refuse(is_bad, text, expected.name, first_row, f"write one of {', '.join(expected.allowed)}")
        if expected.name == "time_zone":
            self.refuse(_each(text, _is_zone), text, "time_zone", first_row, "write an IANA zone such as Europe/Moscow")
        if expected.name == "country":
            self.refuse(
                _each(text, _is_country), text, "country", first_row, "write an ISO 3166-1 alpha-2 code such as RU"
            )
        if expected.name == "channel":
            known = pa.array([NO_SEND, *self.rules.channels])
            is_bad = ~_mask(pc.is_in(text, known)) & _mask(pc.is_valid(text))
            self.refuse(is_bad, text, "channel", first_row, self._unknown_channel())
        return text

    def _unknown_channel(self) -> str:
        return f"no channel of the rules, which have {', '.join(sorted(self.rules.channels))}; mend it or --rules"

    def _channels(self, array: pa.Array, name: str, first_row: int) -> pa.Array:
        lists = array.cast(pa.list_(pa.string()))
        items, parents = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        self._check_keys(lists, items, parents, name, first_row)
        return lists

    def _prices(self, array: pa.Array, expected: Field, first_row: int) -> pa.Array:
        maps = array.cast(FORMS["prices"])
        offsets = maps.offsets.to_numpy()
        counts = np.where(_mask(pc.is_valid(maps)), np.diff(offsets), 0)
        parents = np.repeat(np.arange(len(maps)), counts)
        inside = (
            np.repeat(offsets[:-1], counts) + np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
        )
        keys, items = maps.keys.take(pa.array(inside)), maps.items.take(pa.array(inside))
        self._check_keys(maps, keys, parents, expected.name, first_row)
        values = items.fill_null(np.nan).to_numpy(zero_copy_only=False)
        is_bad = np.zeros(len(maps), dtype=bool)
        is_bad[parents[~((values >= 0) & (values <= (expected.most or np.inf)))]] = True
        self.refuse(is_bad, maps, expected.name, first_row, f"write {_range(expected)}, or leave the channel out")
        return maps

    def _check_keys(
        self, array: pa.Array, keys: pa.Array, parents: NDArray[np.int64], name: str, first_row: int
    ) -> None:
        """Check the channels named within each row: all of the rules, none twice."""
        is_bad = np.zeros(len(array), dtype=bool)
        is_bad[parents[~_mask(pc.is_in(keys, pa.array(list(self.rules.channels))))]] = True
        self.refuse(is_bad, array, name, first_row, f"has {self._unknown_channel()}")
        codes = pc.dictionary_encode(keys).indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        pairs = np.sort(parents.astype(np.int64) * (len(self.rules.channels) + len(keys) + 2) + codes)
        twice = pairs[1:][pairs[1:] == pairs[:-1]] // (len(self.rules.channels) + len(keys) + 2)
        is_twice = np.zeros(len(array), dtype=bool)
        is_twice[twice] = True
        self.refuse(is_twice & ~is_bad, array, name, first_row, "names a channel twice")

    def _feature(self, array: pa.Array, column: pa.Field, first_row: int) -> pa.Array:
        if pa.types.is_floating(column.type):
            values = array.cast(pa.float64(), safe=False)
            numbers = values.fill_null(0.0).to_numpy(zero_copy_only=False)
            self.refuse(
                ~np.isfinite(numbers), array, column.name, first_row, "write a number, or null where it is not known"
            )
            return values
        cast = array.cast(column.type)
        if pa.types.is_string(column.type):
            lengths = pc.fill_null(pc.utf8_length(cast), 1).to_numpy(zero_copy_only=False)
            advice = f"write 1 to {_MOST_FEATURE_TEXT} characters, or null where it is not known"
            self.refuse((lengths == 0) | (lengths > _MOST_FEATURE_TEXT), cast, column.name, first_row, advice)
        return cast

    def _check_decisions(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Check what one column of a decision says against the others."""
        channel, decided = _column(batch, "channel"), _times(batch, "decide_time")
        if channel is not None:
            is_none = _mask(pc.fill_null(pc.equal(channel, NO_SEND), False))
            self._check_action(batch, channel, is_none, first_row)
            self._check_price(batch, channel, is_none, first_row)
        earliest, expire, sent = (_times(batch, name) for name in ("earliest_time", "expire_time", "send_time"))
        for name, times in (("earliest_time", earliest), ("expire_time", expire), ("send_time", sent)):
            if decided is not None and times is not None:
                is_far = np.abs(times - decided) > 2 * _LONGEST
                self.refuse(
                    is_far, _moments(times), name, first_row, "more than 120 days from decide_time; check its unit"
                )
        if decided is not None and sent is not None:
            advice = "before decide_time; check the clocks and zones of both"
            self.refuse(sent < decided, _moments(sent), "send_time", first_row, advice)
        if earliest is not None and expire is not None:
            self.refuse(expire <= earliest, _moments(expire), "expire_time", first_row, "not after earliest_time")

    def _check_action(self, batch: pa.RecordBatch, channel: pa.Array, is_none: BoolArray, first_row: int) -> None:
        is_send = ~is_none & _mask(pc.is_valid(channel))
        sent = _column(batch, "send_time")
        is_timed = np.zeros(len(batch), dtype=bool) if sent is None else _mask(pc.is_valid(sent))
        self.refuse(
            is_send & ~is_timed,
            None,
            "send_time",
            first_row,
            "is null though channel is a send; write when it was sent",
        )
        self.refuse(is_none & is_timed, None, "send_time", first_row, "is given though channel is none; write null")
        eligible = _column(batch, "eligible")
        if eligible is not None:
            parents = pc.list_parent_indices(eligible).to_numpy(zero_copy_only=False)
            own = channel.take(pa.array(parents))
            is_own = _mask(pc.fill_null(pc.equal(pc.list_flatten(eligible), own), False))
            has_own = np.bincount(parents[is_own], minlength=len(batch)) > 0
            advice = "not among the row's eligible channels; add it there"
            self.refuse(is_send & ~has_own & _mask(pc.is_valid(eligible)), channel, "channel", first_row, advice)

    def _check_price(self, batch: pa.RecordBatch, channel: pa.Array, is_none: BoolArray, first_row: int) -> None:
        price, decided = _column(batch, "price"), _column(batch, "decide_time")
        if price is not None:
            charged = price.fill_null(0).to_numpy(zero_copy_only=False) > 0
            self.refuse(
                is_none & charged, None, "price", first_row, "is above 0 though channel is none; write 0 or null"
            )
        paid = [key for key, rules in self.rules.channels.items() if rules.paid]
        is_open = _mask(pc.is_in(channel, pa.array(paid, pa.string())))
        if price is not None:
            is_open &= _mask(pc.is_null(price))
        if decided is None or not is_open.any():
            return
        overrides, country = _column(batch, "prices"), _column(batch, "country")
        category = _column(batch, "category")
        is_unpriced = np.zeros(len(batch), dtype=bool)
        for row in np.flatnonzero(is_open & _mask(pc.is_valid(decided))).tolist():
            key = channel[row].as_py()
            given = dict(overrides[row].as_py() or []) if overrides is not None else {}
            where = (country[row].as_py() if country is not None else None) or self.rules.country
            kind: Category = (category[row].as_py() if category is not None else None) or "marketing"
            day = from_micros(decided[row].as_py()).date()
            is_unpriced[row] = (
                key in self.rules.channels and key not in given and not self._has_price(key, where, kind, day)
            )
        advice = "has no price in the rules' price book for that country, category and day; write price"
        self.refuse(is_unpriced, channel, "price", first_row, advice)

    def _has_price(self, channel: str, country: str, category: Category, day: date) -> bool:
        key = (channel, country, category, day)
        if key not in self._priced:
            self._priced[key] = find_price(self.rules, channel, country, category, day) is not None
        return self._priced[key]


def _can_be_read(kind: pa.DataType, form: pa.DataType, expected: Field | None) -> bool:
    """Tell whether a part's column can be brought to its form; what cannot was refused with the columns, or holds nothing."""
    if expected is None:
        return bool(feature_form(kind) == form)
    return bool(_ACCEPTED[expected.kind](kind) or (pa.types.is_null(kind) and expected.is_required))


def _shown(value: pa.Scalar) -> object:
    """Return a value as a refusal shows it."""
    found = value.as_py()
    return f"{found:%Y-%m-%d %H:%M:%S} UTC" if isinstance(found, datetime) else found


def _mask(array: pa.Array) -> BoolArray:
    found: BoolArray = np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)
    return found


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    return batch.column(name) if name in batch.schema.names else None


def _times(batch: pa.RecordBatch, name: str) -> NDArray[np.float64] | None:
    """Return a column of times in microseconds, NaN where there is none."""
    column = _column(batch, name)
    if column is None:
        return None
    found: NDArray[np.float64] = np.where(
        _mask(pc.is_null(column)), np.nan, column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    )
    return found


def _moments(times: NDArray[np.float64]) -> pa.Array:
    return pa.array(np.nan_to_num(times).astype(np.int64)).cast(pa.timestamp("us", "UTC"))


def _each(text: pa.Array, is_good: Callable[[str], bool]) -> BoolArray:
    """Tell which rows hold a value that is not good; each distinct value is asked for once."""
    bad = [value for value in pc.unique(text).to_pylist() if value and not is_good(value)]
    return _mask(pc.is_in(text, pa.array(bad, pa.string())))


def _is_zone(name: str) -> bool:
    try:
        zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_country(name: str) -> bool:
    return re.fullmatch(r"[A-Z]{2}", name) is not None


def _range(expected: Field) -> str:
    low, high = expected.least, expected.most
    above = "more than" if expected.is_above_least else "at least"
    said = "" if low is None else f" that is {above} {low:g}"
    said += "" if high is None else f" and at most {high:g}"
    return f"{'an integer' if expected.kind == 'whole' else 'a number'}{said}"


def _where_unknown(expected: Field) -> str:
    return "it is required" if expected.is_required else "or null where it is not known"
