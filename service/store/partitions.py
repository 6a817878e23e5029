"""The decision log of PostgreSQL by months: made ahead, and dropped when they are old.

A decision's id begins with its time in milliseconds, so that the months are ranges of ids and one id is in one partition, together with
all steps of its cascade. What has no month, as under a simulated clock, is in the default partition: a missing one never fails a decision.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from service.store.database import lock_key

_MAKING = lock_key("table", "decisions")
Run = Callable[[str], Any]
"""Runs a statement on a connection and returns a cursor; whoever hands it over commits."""
AHEAD = 3
"""Months made beyond the present one."""


def month_of(moment: datetime) -> datetime:
    """Return the begin of a moment's month."""
    return datetime(moment.year, moment.month, 1, tzinfo=UTC)


def next_month(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def first_id(moment: datetime) -> str:
    """Return what the ids of decisions made from a moment on are not less than."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def name_of(month: datetime) -> str:
    return f"decisions_{month:%Y_%m}"


def list_partitions(run: Run) -> list[str]:
    """Return the names of the partitions that there are, but for the default one."""
    found = run(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'decisions'::regclass AND c.relname <> 'decisions_default' ORDER BY c.relname"
    )
    return [row[0] for row in found]


def make_ahead(run: Run, now: datetime | None = None) -> list[str]:
    """Make the partitions of this month and those ahead that are not there; return the names of those made.

    What the default partition has of such a month moves there.
    """
    run(f"SELECT pg_advisory_xact_lock({_MAKING})")
    known = set(list_partitions(run))
    made = [month for month in _months(now or datetime.now(UTC)) if name_of(month) not in known]
    for month in made:
        _make(run, month)
    return [name_of(month) for month in made]


def _months(now: datetime) -> Iterator[datetime]:
    month = month_of(now)
    for _ in range(AHEAD + 1):
        yield month
        month = next_month(month)


def _make(run: Run, month: datetime) -> None:
    """Make a month's table beside the log, move into it what it is to have, and attach it; the log is locked only for the last."""
    name, first, last = name_of(month), first_id(month), first_id(next_month(month))
    span = f"decision_id >= '{first}' AND decision_id < '{last}'"
    for statement in (
        "SET LOCAL lock_timeout = '5s'",
        "LOCK TABLE decisions_default IN SHARE ROW EXCLUSIVE MODE",
        f"CREATE TABLE {name} (LIKE decisions INCLUDING DEFAULTS INCLUDING COMMENTS INCLUDING INDEXES)",
        f"WITH moved AS (DELETE FROM decisions_default WHERE {span} RETURNING *) INSERT INTO {name} SELECT * FROM moved",  # noqa: S608  # names and ids are made here
        f"ALTER TABLE decisions ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{last}')",
    ):
        run(statement)


def list_before(run: Run, cutoff: datetime) -> list[str]:
    """Return the names of the months that ended before a time."""
    return [name for name in list_partitions(run) if name < name_of(cutoff)]


def is_older(run: Run, name: str, cutoff: datetime) -> bool:
    """Tell whether every step in a partition was decided before a time: a cascade's steps are where its first one is."""
    (newest,) = run(f"SELECT max(decide_time) FROM {name}").fetchone()  # noqa: S608  # a name of the catalogue
    return newest is None or newest < int(cutoff.timestamp() * 1_000_000)


def drop(run: Run, name: str, cutoff: datetime) -> bool:
    """Drop a partition if it is still older than a time."""
    run("SET LOCAL lock_timeout = '5s'")
    run(f"LOCK TABLE ONLY decisions, {name} IN ACCESS EXCLUSIVE MODE")
    if not is_older(run, name, cutoff):
        return False
    run(f"DROP TABLE {name}")
    return True
