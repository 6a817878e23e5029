"""Time and memory of writing, reading and learning from training data: `python -m tests.benchmarks.frames --decisions 1000000 --train 1000000 10000000`.

A log of the simulated retailer is repeated until it is long enough: each copy has ids and customers of its own and comes after the one before. `python -m training dataset` writes it in a process of
its own. A million decisions take 9 GB of disk as a database and 0.1 GB as Parquet; those of `--world starter`, which has fewer features and no visits, 3 GB, so that ten million can be written from a
database (`--world starter --decisions 10000000 --train`) where there are 35 GB. Training is measured on Parquet files that are repeated in the same way: `python -m training train --data`, all of it, with its run in MLflow. It grows 100 trees at most: on copies of the same decisions they would grow without end.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from models.rules import read_rules
from service.store.identity import load_keys
from service.store.store import Store
from training.frames import DESCRIPTION, Parts, read_description, write_frames
from training.journal import write_log
from training.options import DEFAULT_RULES
from training.simulate import simulate_log
from training.world.make_log import LogPlan, make_log

_ROOT = Path(__file__).parent.parent.parent
_ONE = 20_000
_WINDOW = timedelta(hours=72)
_BATCH = 10_000
_KEY = "substr({table}.customer_key, 1, 24) || printf('%08d', :copy)"
_WEEK_HOURS = 168
_TREES = "100"
_SHIFTED = ("send_hours", "begin_hours", "expire_hours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one command took."""

    what: str
    seconds: float
    cpu_seconds: float
    peak_megabytes: float

    def line(self, decisions: int) -> str:
        each = 1e6 * self.cpu_seconds / decisions
        return f"{self.what:<14}{self.seconds:8.0f} s, {self.cpu_seconds:6.0f} s of a processor, {each:5.0f} us a decision, {self.peak_megabytes:6.0f} MB at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The log that is repeated: how many rows its tables have, and its first and last time."""

    decisions: int
    outcomes: int
    first: int
    last: int


def find_base(path: Path) -> Base:
    """Return what a log holds before it is repeated."""
    with closing(sqlite3.connect(path)) as connection:
        first, last, decisions = connection.execute(
            "SELECT min(decide_time), max(decide_time), max(rowid) FROM decisions"
        ).fetchone()
        (outcomes,) = connection.execute("SELECT max(rowid) FROM outcomes").fetchone()
    return Base(decisions=decisions, outcomes=outcomes, first=first, last=last)


def repeat(path: Path, base: Base, copies: range) -> None:
    """Append these copies of its base to a log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        changed = {
            "decisions": {
                "decision_id": "decision_id || '-' || :copy",
                "request_id": "request_id || '-' || :copy",
                "customer_key": _KEY.format(table="decisions"),
                "decide_time": "decide_time + :shift",
                "send_time": "send_time + :shift",
            },
            "outcomes": {
                "event_id": "event_id || '-' || :copy",
                "decision_id": "CASE decision_id WHEN '' THEN '' ELSE decision_id || '-' || :copy END",
                "customer_key": _KEY.format(table="outcomes"),
                "occur_time": "occur_time + :shift",
                "receive_time": "receive_time + :shift",
            },
        }
        for copy in tqdm(copies, desc="repeat", unit=" copies", disable=None):
            given = {"copy": copy, "shift": copy * (base.last - base.first + 1)}
            connection.execute("BEGIN")
            for table, changes in changed.items():
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                values = ", ".join(changes.get(name, name) for name in names)
                most = base.decisions if table == "decisions" else base.outcomes
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE rowid <= :most",
                    given | {"most": most},
                )
            connection.execute("COMMIT")


def repeat_frames(source: Path, target: Path, copies: int) -> int:
    """Write training data so many times over, each copy whole weeks after the one before and of customers of its own; return how many decisions that are."""
    described = read_description(source)
    table = pa.concat_tables(pq.read_table(source / file) for file in described.files)
    table = table.filter(table["is_closed"]).combine_chunks()
    hours = pc.divide(pc.subtract(pc.max(table["expire_hours"]), pc.min(table["send_hours"])), _WEEK_HOURS)
    span = _WEEK_HOURS * (int(hours.as_py()) + 1)
    target.mkdir()
    writer = Parts(target, table.schema)
    for copy in tqdm(range(copies), desc="repeat", unit=" copies", disable=None):
        for batch in _copied(table, copy, copy * span).to_batches(_BATCH):
            writer.add(batch)
    files = writer.close()
    again = replace(described, decisions=writer.count, closed=writer.count, files=files)
    (target / DESCRIPTION).write_text(json.dumps(asdict(again) | {"digest": again.digest}))
    return writer.count


def _copied(table: pa.Table, copy: int, hours: int) -> pa.Table:
    changed = {name: pc.add(table[name], float(hours)) for name in _SHIFTED}
    later = pc.add(table["decide_time"], pa.scalar(timedelta(hours=hours)))
    active = table["active_hours"].combine_chunks()
    shifted = pc.add(active.values, pa.scalar(hours, pa.int32()))
    keys = table["customer"].combine_chunks().dictionary_encode()
    others = [hashlib.sha256(f"{key}-{copy}".encode()).hexdigest()[:32] for key in keys.dictionary.to_pylist()]
    changed |= {
        "decide_time": later,
        "active_hours": pa.ListArray.from_arrays(active.offsets, shifted, type=active.type),
        "customer": pa.DictionaryArray.from_arrays(keys.indices, pa.array(others)).cast(pa.string()),
    }
    return pa.table([changed.get(name, table[name]) for name in table.column_names], schema=table.schema)


def measure(what: str, *command: str) -> Measured:
    """Run a command in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=_ROOT)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} failed"
    return Measured(
        what=what,
        seconds=time.perf_counter() - began,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_megabytes=used.ru_maxrss / 1024,
    )


def main() -> None:
    """Make the logs, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frames", description=__doc__)
    parser.add_argument(
        "--decisions",
        type=int,
        nargs="*",
        default=[1_000_000],
        help="of the database, at least, rising (default: 1000000)",
    )
    parser.add_argument(
        "--train",
        type=int,
        nargs="*",
        default=[1_000_000, 10_000_000],
        help="of training data, at least, rising (default: 1000000 10000000)",
    )
    parser.add_argument(
        "--world", choices=["retailer", "starter"], default="retailer", help="whose log is repeated (default: retailer)"
    )
    parser.add_argument("--folder", type=Path, help="where the logs and the files are made, and left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'log.db'}"
        store = Store(url)
        try:
            made = _make(options.world, store, load_keys(store, url).current)
        finally:
            store.close()
        write_frames(url, folder / "frames", _WINDOW)
        source, done = find_base(folder / "log.db"), 1
        for number in options.decisions:
            copies = -(-number // made)
            repeat(folder / "log.db", source, range(done, copies))
            done = copies
            size = (folder / "log.db").stat().st_size / 1e9
            written = folder / f"written-{number}"
            measured = measure("dataset", "-m", "training", "dataset", "--log", url, "--to", str(written))
            print(f"{copies * made:,} decisions, log {size:.1f} GB, Parquet {_megabytes(written)} MB")
            print(measured.line(copies * made), flush=True)
        base = read_description(folder / "frames").closed
        for number in options.train:
            target = folder / f"frames-{number}"
            decisions = repeat_frames(folder / "frames", target, -(-number // base))
            mlflow = f"sqlite:///{folder / 'mlflow.db'}"
            measured = measure(
                "train --data", "-m", "training", "train", "--data", str(target), "--mlflow", mlflow, "--trees", _TREES
            )
            print(f"{decisions:,} decisions, Parquet {_megabytes(target)} MB")
            print(measured.line(decisions), flush=True)


def _make(world: str, store: Store, key: bytes) -> int:
    """Write the log that is repeated, and return how many decisions it has."""
    if world == "retailer":
        return make_log(LogPlan(decisions=_ONE), store, key, None, lambda _: None).decisions
    identities, decisions = simulate_log(_ONE, read_rules(DEFAULT_RULES), key, 0, lambda _: None)
    write_log(store, decisions, identities)
    return _ONE


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f}"


if __name__ == "__main__":
    main()
