"""Deleting what is older than it is to be kept, in short transactions beside a service that runs."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from models.record import to_micros
from service.store import partitions
from service.store.engine import make_engine
from service.store.opening import migrate
from service.store.url import is_postgres, parse_url

_CHUNK = 2000
_OLD = """
SELECT DISTINCT d.decision_id FROM {table} d WHERE d.decide_time < :limit AND NOT EXISTS (
  SELECT 1 FROM {table} later WHERE later.decision_id = d.decision_id AND later.decide_time >= :limit) LIMIT :most
"""
_OLD_OUTCOMES = "SELECT event_id FROM outcomes WHERE occur_time < :limit AND receive_time < :limit LIMIT :most"
_FOLLOWING = {
    "requests": "(request_id, step) IN (SELECT request_id, step FROM {table} WHERE {which})",
    "contacts": "decision_id IN (SELECT decision_id FROM {table} WHERE {which})",
    "reservations": "reserved_micros = 0 AND decision_id IN (SELECT decision_id FROM {table} WHERE {which})",
}
"""What goes with decisions of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What was done: partitions made and dropped, and rows deleted by table."""

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    deleted: dict[str, int] = field(default_factory=dict)


def maintain(url: str, now: datetime, keep_decisions_from: datetime | None, keep_outcomes_from: datetime) -> Maintained:
    """Make partitions ahead; delete decisions whose last step is older than the one time, and outcomes older than the other.

    With a decision go its request, contacts and settled reservations. None keeps everything.

    Raises
    ------
    StoreInvalid: the database cannot be opened. sqlalchemy.exc.DatabaseError: it went away, or another holds it; what was done stays done.
    """
    parsed = parse_url(url)
    migrate(url)
    engine = make_engine(parsed)
    made: list[str] = []
    dropped: list[str] = []
    try:
        if is_postgres(parsed):
            with engine.begin() as connection:
                made = partitions.make_ahead(connection.exec_driver_sql, now)
        if keep_decisions_from is None:
            return Maintained(made=made)
        table = "decisions"
        deleted: Counter[str] = Counter()
        if is_postgres(parsed):
            table = "decisions_default"
            dropped = [
                name
                for name in _old_partitions(engine, keep_decisions_from)
                if _drop(engine, name, keep_decisions_from, deleted)
            ]
        _delete_decisions(engine, table, to_micros(keep_decisions_from), deleted)
        _delete_outcomes(engine, to_micros(keep_outcomes_from), deleted)
        return Maintained(made=made, dropped=dropped, deleted=dict(deleted))
    finally:
        engine.dispose()


def _old_partitions(engine: Engine, cutoff: datetime) -> list[str]:
    with engine.begin() as connection:
        return partitions.list_before(connection.exec_driver_sql, cutoff)


def _drop(engine: Engine, name: str, cutoff: datetime, deleted: Counter[str]) -> bool:
    """Drop a partition unless a cascade of it went on since; first what goes with it, so that the log is locked only for the last."""
    with engine.begin() as connection:
        if not partitions.is_older(connection.exec_driver_sql, name, cutoff):
            return False
        _delete_following(connection, name, "true", {}, deleted)
    with engine.begin() as connection:
        return partitions.drop(connection.exec_driver_sql, name, cutoff)


def _delete_decisions(engine: Engine, table: str, limit: int, deleted: Counter[str]) -> None:
    while True:
        with engine.begin() as connection:
            found = connection.execute(text(_OLD.format(table=table)), {"limit": limit, "most": _CHUNK})
            ids = {f"id_{number}": row[0] for number, row in enumerate(found)}
            if not ids:
                return
            which = f"decision_id IN ({', '.join(f':{name}' for name in ids)})"
            _delete_following(connection, table, which, ids, deleted)
            deleted["decisions"] += connection.execute(text(f"DELETE FROM {table} WHERE {which}"), ids).rowcount  # noqa: S608  # names of ours


def _delete_following(
    connection: Connection, table: str, which: str, values: dict[str, str], deleted: Counter[str]
) -> None:
    for name, condition in _FOLLOWING.items():
        statement = f"DELETE FROM {name} WHERE {condition.format(table=table, which=which)}"  # noqa: S608  # names of ours
        deleted[name] += connection.execute(text(statement), values).rowcount


def _delete_outcomes(engine: Engine, limit: int, deleted: Counter[str]) -> None:
    statement = text(f"DELETE FROM outcomes WHERE event_id IN ({_OLD_OUTCOMES})")  # noqa: S608  # a text of ours
    while True:
        with engine.begin() as connection:
            count = connection.execute(statement, {"limit": limit, "most": _CHUNK}).rowcount
        deleted["outcomes"] += count
        if not count:
            return
