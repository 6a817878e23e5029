"""Reads a log of any size from Parquet: checks all of it, then hands it out in shards of customers that fit in memory.

One pass over each file checks it batch by batch and copies it, in its checked form, into temporary files by a hash of the customer. Nothing
has to be sorted.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import LogUnusable
from models.rules import Rules
from training.logs.check import BatchChecker, check_columns
from training.logs.index import DecisionIndex, Hashes, References, column, hash_texts
from training.logs.mistakes import Mistakes, Places
from training.logs.schema import ACTIVITY, DECISIONS, OUTCOMES, Schema

_BATCH = 1 << 15
_SHARD = 5_000
"""Decisions in a shard, about."""
_MOST_SHARDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some customers with all that the log has of them, in the order of the files; None where it has no such file."""

    decisions: pa.Table
    outcomes: pa.Table
    activity: pa.Table | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """A log without mistakes; its shards can be read until the block of `open_log` ends."""

    decisions: int
    customers: int
    outcomes: int
    visits: int
    notes: tuple[str, ...]
    """What is odd in the log though it is no mistake."""
    folder: Path
    shard_count: int

    def shards(self) -> Iterator[Shard]:
        """Yield all customers, a shard at a time."""
        for number in range(self.shard_count):
            decisions, outcomes, activity = (
                _load(self.folder, schema, number) for schema in (DECISIONS, OUTCOMES, ACTIVITY)
            )
            yield Shard(decisions=decisions, outcomes=outcomes, activity=activity)


@contextmanager
def open_log(
    folder: Path, rules: Rules, progress: Callable[[int], object], scratch: Path | None = None
) -> Iterator[CheckedLog]:
    """Check the log in a folder, and keep its shards in a temporary folder within `scratch` until the end of the block.

    Without `scratch` nothing is kept: for a check alone.

    Raises
    ------
    LogRefused: with the mistakes of all files. LogUnusable: a file is missing or cannot be read, or there is no decision.
    """
    files = {schema.file: find_parts(folder, schema) for schema in (DECISIONS, OUTCOMES, ACTIVITY)}
    total = sum(_read_metadata(part).num_rows for part in files[DECISIONS.file])
    if not total:
        raise LogUnusable(f"{folder / DECISIONS.file} has no rows; there is nothing to import")
    mistakes = Mistakes()
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="import-", dir=scratch) as name:
        shards = max(1, min(_MOST_SHARDS, -(-total // _SHARD)))
        copy = _Copy(
            folder=Path(name), shards=shards if scratch else 0, rules=rules, mistakes=mistakes, progress=progress
        )
        index, places = DecisionIndex(), Places()
        copy.run(DECISIONS, files[DECISIONS.file], places, lambda batch, _: index.add(batch))
        index.finish(places, mistakes)
        places = Places()
        references = References(index, places, mistakes)
        outcomes = copy.run(OUTCOMES, files[OUTCOMES.file], places, references.add)
        references.finish()
        visitors: list[Hashes] = []

        def visitors_of(batch: pa.RecordBatch, _first_row: int) -> Hashes:
            customers, _ = hash_texts(column(batch, "customer_id"), len(batch))
            visitors.append(np.unique(customers))
            return customers

        visits = copy.run(ACTIVITY, files[ACTIVITY.file], Places(), visitors_of)
        mistakes.check(str(folder))
        yield CheckedLog(
            decisions=total,
            customers=len(np.unique(np.concatenate([index.customer, *references.strangers, *visitors]))),
            outcomes=outcomes,
            visits=visits,
            notes=tuple(references.notes()),
            folder=Path(name),
            shard_count=copy.shards,
        )


def find_parts(folder: Path, schema: Schema) -> list[Path]:
    """Return the file of a schema, or the parts of it where it is a folder, in order of their names; no activity is no part.

    Raises
    ------
    LogUnusable: there is none though there must be.
    """
    path = folder / schema.file
    if path.is_file():
        return [path]
    parts = sorted(path.glob("*.parquet"))
    if not parts and (schema is not ACTIVITY or path.exists()):
        raise LogUnusable(
            f"there is no {path}, neither a file nor a folder of *.parquet; name the log's folder with --data"
        )
    return parts


def _name(part: Path, schema: Schema) -> str:
    """Return how refusals name a part."""
    return part.name if part.name == schema.file else f"{schema.file}/{part.name}"


def _batches(part: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=_BATCH)
    except (OSError, ValueError) as error:
        raise LogUnusable(f"{part} is not a Parquet file that can be read: {error}") from error


def _read_metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise LogUnusable(f"{path} is not a Parquet file that can be read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """Copies files into shards while it checks them."""

    folder: Path
    shards: int
    rules: Rules
    mistakes: Mistakes
    progress: Callable[[int], object]

    def run(
        self, schema: Schema, parts: list[Path], places: Places, owners: Callable[[pa.RecordBatch, int], Hashes]
    ) -> int:
        """Copy the parts of one file; `owners` tells the customers of a batch that begins at a row. Return how many rows there are."""
        row = 0
        form = self._form(schema, parts)
        with ExitStack() as stack:
            paths = [self.folder / f"{schema.file}-{number}" for number in range(self.shards if parts else 0)]
            writers = [stack.enter_context(pa.ipc.new_file(path, form)) for path in paths]
            checker = BatchChecker(schema, form, self.rules, places, self.mistakes)
            for part in parts:
                places.begin(_name(part, schema), row)
                for batch in _batches(part):
                    read = checker.read(batch, row)
                    customers = owners(read, row)
                    if writers and not self.mistakes.count:
                        self._write(read, customers, writers)
                    row += len(batch)
                    self.progress(len(batch))
        return row

    def _form(self, schema: Schema, parts: list[Path]) -> pa.Schema:
        """Return the columns of all parts together, by name; one that a part lacks is null there."""
        form: dict[str, pa.Field] = {}
        for part in parts:
            name = _name(part, schema)
            for field in check_columns(_read_metadata(part).schema.to_arrow_schema(), schema, name, self.mistakes):
                known = form.setdefault(field.name, field)
                if known.type != field.type:
                    advice = f"is {field.type} here and {known.type} in a part before; make all parts alike"
                    self.mistakes.add(name, f"column {field.name}", advice)
        return pa.schema([form[name] for name in sorted(form)])

    def _write(self, batch: pa.RecordBatch, customers: Hashes, writers: list[pa.ipc.RecordBatchFileWriter]) -> None:
        shard = (customers % np.uint64(self.shards)).astype(np.int64)
        order = np.argsort(shard, kind="stable")
        gathered = batch.take(pa.array(order))
        bounds = np.searchsorted(shard[order], np.arange(self.shards + 1))
        for number, writer in enumerate(writers):
            if bounds[number] < bounds[number + 1]:
                writer.write_batch(gathered.slice(bounds[number], bounds[number + 1] - bounds[number]))


def _load(folder: Path, schema: Schema, number: int) -> pa.Table | None:
    path = folder / f"{schema.file}-{number}"
    if not path.is_file():
        return None
    with pa.ipc.open_file(path) as reader:
        return reader.read_all()
