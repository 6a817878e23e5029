"""Training data as Parquet files with a description, for scientists and for `train`: written a chunk at a time, however long the log is.

The folder holds `part-00000.parquet` and so on, in order of time, and `dataset.json`: what each column is, where the data are from, and the sha256 of each part. The digest of the data set
is that of its description. Read back, it is the data set that the log itself gives, to the bit.

Columns are those of `training.dataset.Dataset`, and every feature as used when it was decided, under `feature.` and its name: text where any of its values is text, else a number. What is missing is null.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from sqlalchemy import Connection

from models.context import FeatureValue
from models.correction import REPORT_HOURS
from models.errors import LogUnusable
from models.features import BUILT_IN, CUSTOM_PREFIX, Column, category_name
from models.record import features_from_json, from_micros, to_micros
from service.store.engine import asking
from training.dataset import (
    TRAINABLE,
    Dataset,
    Sample,
    Wanted,
    arrays_of,
    assemble,
    check_excluded,
    choose_rows,
    chunks,
    cut_sample,
    find_log,
    join,
    key_part,
    limits,
    make_columns,
    nothing_closed,
    read_features,
    watched_hours,
)

FloatArray = NDArray[np.float64]
DESCRIPTION = "dataset.json"
FORMAT = 1
PREFIX = "feature."
_READ = 20_000
"""Rows that are read back at a time."""
_SHOWN = 10_000
"""Decisions after which a bar is told to move."""
_PART = 250_000
"""Decisions in a part, about."""
_TIME = pa.timestamp("us", "UTC")
_REPORT = timedelta(hours=REPORT_HOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What one column is."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a folder of training data holds."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    format: int
    log: str
    window_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    as_of: str
    """Until when the log is complete."""
    until: str
    """Decisions are before this."""
    decisions: int
    closed: int
    """Of them, those whose window is over; the others come after them."""
    columns: tuple[Described, ...]
    files: dict[str, str]
    """sha256 of each part."""

    @property
    def digest(self) -> str:
        """sha256 of all of this, but for what the log is called."""
        return hashlib.sha256(_to_json({**asdict(self), "log": ""})).hexdigest()


_DESCRIPTION = TypeAdapter(Description)
_OWN: tuple[tuple[str, pa.DataType, str], ...] = (
    ("decision_id", pa.string(), "id of the decision; with step, of the row"),
    ("step", pa.int32(), "step of the message's cascade, from 1"),
    ("decide_time", _TIME, "when it was decided; rows are in this order, then by decision_id and step"),
    (
        "is_closed",
        pa.bool_(),
        "whether the window of orders is over; where it is not, response and value are not known",
    ),
    ("customer", pa.string(), "key of the person"),
    ("time_zone", pa.string(), "time zone of the person"),
    ("channel", pa.string(), "channel of the action taken; none: decided not to send"),
    ("propensity", pa.float64(), "P(action taken | context) under the policy that decided, in (0, 1]"),
    ("price", pa.float64(), "what the action cost, in units of the currency; 0 where the send was cancelled"),
    ("response", pa.float64(), "1 where the customer ordered within the window after the decision, else 0"),
    ("value", pa.float64(), "margin of those orders, less returns within the window, in units of the currency"),
    ("unsubscribed", pa.float64(), "1 where the customer unsubscribed or complained after this send, else 0"),
    ("clicked", pa.float64(), "1 where the customer clicked within the window, else 0; machines' clicks do not count"),
    (
        "seen",
        pa.float64(),
        "1 where the customer saw, opened, clicked or refused within the window, else 0; machines' opens do not count",
    ),
    ("delivered", pa.float64(), "0 where the send was reported as undelivered or was not made, else 1"),
    ("cancelled", pa.float64(), "1 where the send was not made since the customer had ordered before it, else 0"),
    ("watched_hours", pa.float64(), "hours after the decision for which outcomes were looked at"),
    ("send_hours", pa.float64(), "hours from 1970 to the send; NaN for no send"),
    (
        "seen_hours",
        pa.float64(),
        "hours from the send until it was first seen, opened, clicked or refused; NaN where it was not",
    ),
    ("clicked_hours", pa.float64(), "hours from the send to the first click; NaN where there was none"),
    ("begin_hours", pa.float64(), "hours from 1970 to the message's earliest time, from which its relevance decays"),
    ("expire_hours", pa.float64(), "hours from 1970 to the message's expiry"),
    ("half_life_hours", pa.float64(), "half-life of the message's relevance; infinite where it keeps its worth"),
    (
        "active_hours",
        pa.list_(pa.field("element", pa.int32())),
        "hours since 1970 in which the customer was active before the decision, as serving knew them",
    ),
)
_UNREAD = ("decision_id", "step")
"""For people; a data set goes without."""
_ARRAYS = (
    "channel",
    "customer",
    "time_zone",
    "decide_time",
    "propensity",
    "price",
    "response",
    "value",
    "unsubscribed",
    "clicked",
    "seen",
    "delivered",
    "cancelled",
    "watched_hours",
    "send_hours",
    "seen_hours",
    "clicked_hours",
    "begin_hours",
    "expire_hours",
    "half_life_hours",
)
"""In the order in which a data set digests them."""


def write_frames(
    url: str,
    folder: Path,
    window: timedelta,
    until: datetime | None = None,
    as_of: datetime | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Description:
    """Write the training data of a log into a folder, those of open windows too, and return the description.

    Raises
    ------
    LogUnusable: the folder holds training data already, there is no log, nothing to learn from, or a propensity is not in (0, 1].
    """
    name = find_log(url)
    if folder.is_dir() and any(folder.iterdir()):
        raise LogUnusable(f"{folder} is not empty; name another folder with --to, or remove what it holds")
    with asking(url) as connection:
        newest, asked = limits(connection, name, window, until, as_of)
        asked["least"] = min(asked["window"], _REPORT // timedelta(microseconds=1))
        wanted = choose_rows(connection, asked, TRAINABLE, None)
        types = _feature_types(connection, wanted, progress)
        folder.mkdir(parents=True, exist_ok=True)
        writer = Parts(folder, _schema(types))
        closed = 0
        for rows in chunks(connection, wanted):
            batch, closed_here = _batch(rows, asked, window, types)
            closed += closed_here
            writer.add(batch)
            progress(len(rows))
        files = writer.close()
    if not closed:
        _remove(folder, files)
        raise LogUnusable(nothing_closed(name, window, newest))
    description = Description(
        format=FORMAT,
        log=name,
        window_hours=window / timedelta(hours=1),
        as_of=from_micros(asked["as_of"]).isoformat(),
        until=from_micros(asked["until"]).isoformat(),
        decisions=writer.count,
        closed=closed,
        columns=tuple(
            Described(name=field.name, type=str(field.type), meaning=field.metadata[b"meaning"].decode())
            for field in writer.schema
        ),
        files=files,
    )
    (folder / DESCRIPTION).write_bytes(_to_json(asdict(description) | {"digest": description.digest}))
    return description


def _to_json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _remove(folder: Path, files: Mapping[str, str]) -> None:
    for file in files:
        (folder / file).unlink()


def _feature_types(connection: Connection, wanted: Wanted, progress: Callable[[int], object]) -> dict[str, pa.DataType]:
    """Return every feature that a decision has, with its type: those of the list first, then the callers' by name."""
    texts: dict[str, bool] = {}
    for number, values in enumerate(read_features(connection, wanted)):
        for name, value in values.items():
            texts[name] = texts.get(name, False) or isinstance(value, str)
        if number % _SHOWN == 0:
            progress(0)
    names = [name for name in BUILT_IN if name in texts] + sorted(n for n in texts if n.startswith(CUSTOM_PREFIX))
    return {name: pa.string() if texts[name] else pa.float64() for name in names}


def _schema(types: Mapping[str, pa.DataType]) -> pa.Schema:
    features = [(PREFIX + name, kind, _meaning(name)) for name, kind in types.items()]
    return pa.schema(
        [pa.field(name, kind, metadata={"meaning": meaning}) for name, kind, meaning in (*_OWN, *features)]
    )


def _meaning(name: str) -> str:
    known = BUILT_IN.get(name)
    return f"feature that the caller sent as {name.removeprefix(CUSTOM_PREFIX)}" if known is None else known.meaning


def _batch(
    rows: Sequence[tuple[object, ...]], asked: Mapping[str, int], window: timedelta, types: Mapping[str, pa.DataType]
) -> tuple[pa.RecordBatch, int]:
    """Return rows as the files have them, and how many have their window closed."""
    is_closed, watched = watched_hours(rows, asked, window / timedelta(hours=1))
    arrays, active = arrays_of(rows, watched)
    arrays["decide_time"] = pa.array(arrays["decide_time"], pa.int64()).cast(_TIME)
    own: dict[str, Any] = {
        "decision_id": [str(row[0]) for row in rows],
        "step": [row[1] for row in rows],
        "is_closed": is_closed,
        "active_hours": [list(hours) for hours in active],
        **arrays,
    }
    features = [features_from_json(str(row[7])) for row in rows]
    columns = [pa.array(own[name], kind) for name, kind, _ in _OWN]
    columns += [pa.array([_value(values.get(name), kind) for values in features], kind) for name, kind in types.items()]
    return pa.RecordBatch.from_arrays(columns, schema=_schema(types)), int(is_closed.sum())


def _value(value: FeatureValue | None, kind: pa.DataType) -> FeatureValue | None:
    if value is None:
        return None
    return category_name(value) if pa.types.is_string(kind) else float(value)


class Parts:
    """Writes batches into parts of about so many rows."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.count = 0
        self._folder = folder
        self._files: dict[str, str] = {}
        self._writer: pq.ParquetWriter | None = None
        self._path = folder
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Write a batch, into a new part where the one before is full."""
        if self._writer is None:
            self._path = self._folder / f"part-{len(self._files):05}.parquet"
            self._writer = pq.ParquetWriter(self._path, self.schema, compression="zstd")
        self._writer.write_batch(batch)
        self._rows += len(batch)
        self.count += len(batch)
        if self._rows >= _PART:
            self._finish()

    def close(self) -> dict[str, str]:
        """End the last part and return the sha256 of each."""
        self._finish()
        return self._files

    def _finish(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer, self._rows = None, 0
        with self._path.open("rb") as part:
            self._files[self._path.name] = hashlib.file_digest(part, "sha256").hexdigest()


def read_description(folder: Path) -> Description:
    """Read what a folder holds.

    Raises
    ------
    LogUnusable: it holds no training data, or of another version.
    """
    path = folder / DESCRIPTION
    try:
        found = _DESCRIPTION.validate_json(path.read_bytes())
    except OSError as error:
        raise LogUnusable(f"there is no {path}; write training data with `python -m training dataset`") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LogUnusable(f"{path} does not describe training data: {place}: {first['msg']}; write it again") from error
    if found.format != FORMAT:
        raise LogUnusable(f"{path} has format {found.format}, this version reads {FORMAT}; write it again")
    return found


def read_frames(
    folder: Path,
    until: datetime | None = None,
    exclude: Sequence[str] = (),
    *,
    with_early: bool = False,
    most: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Dataset:
    """Read training data back, as `training.dataset.read_dataset` reads the log.

    Raises
    ------
    LogUnusable: a file is missing, or not what the description says; nothing is left to learn from.
    """
    described = read_description(folder)
    files = _Files(folder, described, until, with_early=with_early)
    if most is not None and described.decisions > most:
        files.sample = cut_sample(sorted(files.by_key().items()), most)
    names = files.features
    check_excluded(names, exclude)
    size, closed, seen, counts = files.count()
    if not closed:
        raise LogUnusable(
            f"no decision of {folder} before --until has its window closed; write more, or name a later time"
        )
    columns = make_columns(seen, counts, exclude)
    matrix = np.empty((size, len(columns)))
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _ARRAYS}
    active: list[tuple[int, ...]] = []
    known: dict[int, int] = {}
    row = 0
    for batch in files.batches([*_ARRAYS, "active_hours", *(PREFIX + column.name for column in columns)]):
        for place, column in enumerate(columns):
            matrix[row : row + len(batch), place] = _encoded(batch[PREFIX + column.name], column)
        for name in _ARRAYS:
            parts[name].append(_array(batch[name]))
        active += _tuples(batch["active_hours"], known)
        row += len(batch)
        progress(len(batch))
    data = assemble(columns, matrix, {name: join(parts.pop(name)) for name in _ARRAYS}, tuple(active))
    return replace(data, window_hours=described.window_hours, sample=files.sample).cut(closed)


class _Files:
    """The files of a folder, and which of their rows are wanted."""

    def __init__(self, folder: Path, described: Description, until: datetime | None, *, with_early: bool) -> None:
        self._paths = [folder / file for file in described.files]
        for path, digest in zip(self._paths, described.files.values(), strict=True):
            _verify(path, digest)
        self._until = None if until is None else pa.scalar(to_micros(until), pa.int64()).cast(_TIME)
        self._with_early = with_early
        self.sample: Sample | None = None
        for path in self._paths:
            with _reading(path):
                names = set(pq.read_schema(path).names)
            expected = (*(c.name for c in described.columns), *(name for name, _, _ in _OWN))
            lacking = [name for name in expected if name not in names and name not in _UNREAD]
            if lacking:
                raise LogUnusable(f"{folder} lacks the column {lacking[0]}; write it again")
        self.features = [c.name.removeprefix(PREFIX) for c in described.columns if c.name.startswith(PREFIX)]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield these columns of the wanted rows, in order of time."""
        read = list(dict.fromkeys([*columns, "is_closed", "decide_time", "customer"]))
        for path in self._paths:
            with _reading(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_READ, columns=read):
                    wanted = batch.filter(self._mask(batch))
                    if len(wanted):
                        yield wanted

    def _mask(self, batch: pa.RecordBatch) -> pa.Array:
        mask = pa.array(np.ones(len(batch), dtype=bool)) if self._with_early else batch["is_closed"]
        if self._until is not None:
            mask = pc.and_(mask, pc.less(batch["decide_time"], self._until))
        if self.sample is not None:
            mask = pc.and_(mask, pc.less(key_part(batch["customer"]), self.sample.before))
        return mask

    def by_key(self) -> Counter[str]:
        """Return how many rows there are by how customers' keys begin."""
        found: Counter[str] = Counter()
        for batch in self.batches(()):
            found.update(_counts(key_part(batch["customer"])))
        return found

    def count(self) -> tuple[int, int, set[str], dict[str, Counter[str]]]:
        """Return how many rows there are and have their window closed, which features any has, and how often each text of them is there."""
        size = closed = 0
        seen: set[str] = set()
        counts: dict[str, Counter[str]] = {}
        for batch in self.batches([PREFIX + name for name in self.features]):
            size += len(batch)
            closed += pc.sum(batch["is_closed"]).as_py()
            for name in self.features:
                column = batch[PREFIX + name]
                if column.null_count < len(batch):
                    seen.add(name)
                    if pa.types.is_string(column.type):
                        counts.setdefault(name, Counter()).update(_counts(column))
        return size, closed, seen, counts


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise as LogUnusable what goes wrong with a file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LogUnusable(f"{path} cannot be read: {error}; write the training data again") from error


def _verify(path: Path, digest: str) -> None:
    with _reading(path), path.open("rb") as part:
        found = hashlib.file_digest(part, "sha256").hexdigest()
    if found != digest:
        raise LogUnusable(f"the sha256 of {path} is not that of {DESCRIPTION}; write the training data again")


def _counts(column: pa.Array) -> Counter[str]:
    found = pc.value_counts(column.drop_null())
    return Counter(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))


def _encoded(values: pa.Array, column: Column) -> FloatArray:
    """Return a feature as its column of the matrix, shape (n,)."""
    if column.kind == "number":
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    codes = pc.index_in(values, value_set=pa.array(column.categories, pa.string()))
    return np.asarray(codes.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _tuples(column: pa.Array, known: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield lists of hours as tuples; each hour is one object, `known` holds them, however many lists it is in."""
    ends = column.offsets.to_numpy()
    hours = [known.setdefault(hour, hour) for hour in column.values.to_numpy()[: ends[-1]].tolist()]
    return (tuple(hours[begin:end]) for begin, end in itertools.pairwise(ends.tolist()))


def _array(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
