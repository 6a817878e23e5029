"""`python -m service maintain`: what is to be done now and then, once a day say, beside services that run."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import DatabaseError

from models.errors import SettingsInvalid, StoreInvalid, Violation
from models.record import to_micros
from models.rules import read_rules
from service.budgets import settle_expired
from service.customers import ORDER_MEMORY, contact_memory
from service.settings import Settings
from service.store.retention import Maintained, maintain
from service.store.store import LEDGER, Store


def maintain_all(settings: Settings, now: datetime | None = None) -> list[str]:
    """Settle what expired, make partitions ahead, delete what is old; return what was done, in words.

    Raises
    ------
    SettingsInvalid: retention_days is shorter than the rules look back. StoreInvalid: the database cannot be opened or was lost meanwhile.
    """
    now = now or datetime.now(UTC)
    rules = read_rules(settings.rules_file)
    kept = None if settings.retention_days is None else timedelta(days=settings.retention_days)
    if kept is not None and kept <= contact_memory(rules):
        problem = f"must be more than the {contact_memory(rules).days} days that caps of {settings.rules_file} and features look back"
        raise SettingsInvalid([Violation(field="retention_days", description=problem)], "settings")
    store = Store(settings.database_url, 1)
    try:
        store.write(lambda unit: settle_expired(unit, rules, to_micros(now)), [LEDGER])
    finally:
        store.close()
    outcomes_from = now - max(kept or ORDER_MEMORY, ORDER_MEMORY)
    try:
        done = maintain(settings.database_url, now, None if kept is None else now - kept, outcomes_from)
    except DatabaseError as error:
        raise StoreInvalid(f"the database was lost, or is held by another: {error.orig}; run it again") from error
    return _tell(done, kept)


def _tell(done: Maintained, kept: timedelta | None) -> list[str]:
    lines = [f"partitions made: {', '.join(done.made)}"] if done.made else []
    if kept is None:
        return [*lines, "nothing deleted, since retention_days is not set"]
    lines += [f"partitions dropped: {', '.join(done.dropped)}"] if done.dropped else []
    counts = ", ".join(f"{count} {table}" for table, count in sorted(done.deleted.items()))
    return [*lines, f"older than {kept.days} days, deleted: {counts}"]
