"""Time and memory of writing and reading training data: `python -m tests.benchmarks.frames --decisions 1000000`.

A log of the simulated retailer is repeated until it is long enough: each copy has ids and customers of its own and comes after the one before. Then `python -m training dataset` runs in a process of
its own, and another one reads what it wrote as `train --data` does. A million decisions take 8 GB of disk.
"""

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service.store.identity import load_keys
from service.store.store import Store
from training.world.make_log import LogPlan, make_log

_ROOT = Path(__file__).parent.parent.parent
_ONE = 20_000
_KEY = "substr({table}.customer_key, 1, 24) || printf('%08d', :copy)"
_READ = "import sys; from pathlib import Path; from training.frames import read_frames; data = read_frames(Path(sys.argv[1]), with_early=True); print(data.matrix.shape)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one command took."""

    what: str
    seconds: float
    peak_megabytes: float

    def line(self, decisions: int) -> str:
        each = 1e6 * self.seconds / decisions
        return f"{self.what:<24}{self.seconds:8.0f} s {each:8.0f} us a decision {self.peak_megabytes:8.0f} MB at most"


def repeat(path: Path, copies: int) -> None:
    """Append copies of a log to itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        first, last = connection.execute("SELECT min(decide_time), max(decide_time) FROM decisions").fetchone()
        newest = connection.execute("SELECT rowid FROM decisions ORDER BY rowid DESC LIMIT 1").fetchone()[0]
        newest_outcome = connection.execute("SELECT rowid FROM outcomes ORDER BY rowid DESC LIMIT 1").fetchone()[0]
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
        for copy in tqdm(range(1, copies + 1), desc="repeat", unit=" copies", disable=None):
            given = {"copy": copy, "shift": copy * (last - first + 1)}
            connection.execute("BEGIN")
            for table, changes in changed.items():
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                values = ", ".join(changes.get(name, name) for name in names)
                most = newest if table == "decisions" else newest_outcome
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE rowid <= :most",
                    given | {"most": most},
                )
            connection.execute("COMMIT")


def measure(what: str, *command: str) -> Measured:
    """Run a command in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=_ROOT, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak > before or before == 0, "a later command was smaller than one before; its peak is not known"
    return Measured(what=what, seconds=time.perf_counter() - began, peak_megabytes=peak / 1024)


def main() -> None:
    """Make the log, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frames", description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000, help="at least (default: 1000000)")
    parser.add_argument("--folder", type=Path, help="where the log and the files are made, and left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'log.db'}"
        store = Store(url)
        try:
            made = make_log(LogPlan(decisions=_ONE), store, load_keys(store, url).current, None, lambda _: None)
        finally:
            store.close()
        copies = -(-options.decisions // made.decisions)
        repeat(folder / "log.db", copies - 1)
        decisions = copies * made.decisions
        size = (folder / "log.db").stat().st_size / 1e9
        measured = [
            measure("write (dataset)", "-m", "training", "dataset", "--log", url, "--to", str(folder / "frames"))
        ]
        written = sum(path.stat().st_size for path in (folder / "frames").iterdir()) / 1e6
        measured.append(measure("read (train --data)", "-c", _READ, str(folder / "frames")))
        print(f"{decisions:,} decisions, log {size:.1f} GB, Parquet {written:.0f} MB")
        print(*(one.line(decisions) for one in measured), sep="\n")


if __name__ == "__main__":
    main()
