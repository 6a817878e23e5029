"""What the store asks of an engine; the engines themselves are in sqlite and postgres, and nothing of them is anywhere else."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
BUSY_SECONDS = 5.0
"""How long a statement may wait or run before the call is told to try again."""
PURCHASES = ("order", "store_purchase")
ENGAGED = ("seen", "opened", "clicked")
ACTIVE = ("visit", *ENGAGED, *PURCHASES)
KEYED = ("decisions", "outcomes", "contacts", "identities")
"""Tables whose rows follow a person who is merged into another."""


def lock_key(kind: str, name: str | bytes) -> int:
    """Return the number that a lock has, the same in every process: 63 bits of a hash."""
    body = name if isinstance(name, bytes) else name.encode()
    return int.from_bytes(hashlib.blake2b(body, digest_size=8, person=kind.encode()).digest()) >> 1


MIGRATING = lock_key("table", "alembic_version")
"""Under which a schema is brought up to date."""


def tell(error: Exception) -> str:
    """Return the first line of what an engine says, which is what happened; what follows are its guesses."""
    return str(error).strip().partition("\n")[0]


class Cursor(Protocol):
    """Runs statements by their names in service.store.statements."""

    def rows(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows that a statement finds."""
        ...

    def row(self, name: str, values: Mapping[str, Any]) -> Any:
        """Return the first row that a statement finds, None where it finds none."""
        ...

    def rows_of_each(self, name: str, values: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """Return what `rows` would for each of these values, without waiting for one after another."""
        ...

    def run(self, name: str, values: Mapping[str, Any]) -> int:
        """Run a statement and return how many rows it wrote."""
        ...

    def insert(self, name: str, values: Mapping[str, Any]) -> None:
        """Run an insert whose key is known to be free; it may be sent later, but before anything that reads its table."""
        ...

    def run_many(self, name: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement once for each of these values."""
        ...


class Undone(Exception):
    """Raised where one unit's failure undid its whole group; run the group again, carefully."""


class Session(Protocol):
    """The connection that one group of units is written through, in one transaction.

    `broken` are the errors after which nothing of the transaction can be kept; any other error undoes its own unit alone.
    """

    broken: tuple[type[Exception], ...]

    @property
    def cursor(self) -> Cursor: ...

    def begin(self, locks: Iterable[int], *, is_careful: bool) -> None:
        """Begin a transaction that holds these locks until its end, against every other session.

        If it is careful, a unit that fails is always undone alone; else it may raise Undone.
        """
        ...

    def run_unit(self, unit: Callable[[Cursor], T]) -> T:
        """Run a unit of work; what it raises undoes what it wrote and is raised."""
        ...

    def finish(self) -> None:
        """Send what has not been sent yet; raises Undone where that fails."""
        ...

    def commit(self) -> None:
        """End the transaction; when this returns, all of it is on disk."""
        ...

    def roll_back(self, error: Exception) -> None:
        """Undo the transaction after an error, whatever state it is in."""
        ...

    def is_worth_repeating(self, error: Exception) -> bool:
        """Tell whether a transaction that failed so, before its commit, may well succeed at once."""
        ...

    def close(self) -> None: ...


class Database(Protocol):
    """An open database whose schema is up to date."""

    broken: tuple[type[Exception], ...]
    is_shared: bool
    """Whether several processes may write at the same time."""

    def reading(self, question: Callable[[Cursor], T]) -> T:
        """Ask something; each statement sees all that is committed by then."""
        ...

    def session(self) -> Session:
        """Return the connection to write through."""
        ...

    def scrub(self) -> None:
        """Take what was deleted off the disk, as far as that can be done at once."""
        ...

    def close(self) -> None: ...
