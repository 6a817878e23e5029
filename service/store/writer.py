"""Group commit: concurrent units of work share one transaction, and each is answered only after its commit.

One thread writes. It takes all units that wait, runs each in a savepoint so that one failing does not undo the others, and commits
once. With a synchronous commit of milliseconds this turns hundreds of rows a second into thousands, at no risk: who waits is told
after the data are on disk.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from models.errors import StoreUnavailable

T = TypeVar("T")
_BATCH = 256
_Job = tuple[Callable[[sqlite3.Cursor], Any], "Future[Any]"]


class GroupWriter:
    """Runs units of work on one connection of its own, gathered into shared commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="group-writer", daemon=True)
        self._thread.start()

    def run(self, unit: Callable[[sqlite3.Cursor], T]) -> T:
        """Run a unit of work and return what it returned, once that is committed.

        Raises
        ------
        StoreUnavailable: the database is locked or cannot be written, or the writer is closed; nothing of the unit was kept. Whatever
        the unit itself raises undoes the unit and is raised here.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable("the store is closed")
            self._jobs.put((unit, future))
        return future.result()

    def close(self) -> None:
        """Commit what waits, then stop."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch, is_last = self._gather(job)
            self._commit(batch)
            if is_last:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        """Return the job with all others that wait, and whether the writer was told to stop."""
        batch = [first]
        while len(batch) < _BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _commit(self, batch: list[_Job]) -> None:
        """Run a batch in one transaction and answer each of its jobs."""
        answers: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            for unit, future in batch:
                answers.append((future, *_run_in_savepoint(cursor, unit)))
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            failure = StoreUnavailable(f"the database cannot be written: {error}; try again")
            failure.__cause__ = error
            for _, future in batch:
                future.set_exception(failure)
            return
        for future, result, problem in answers:
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(problem)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _run_in_savepoint(
    cursor: sqlite3.Cursor, unit: Callable[[sqlite3.Cursor], Any]
) -> tuple[Any, BaseException | None]:
    cursor.execute("SAVEPOINT unit")
    try:
        result, problem = unit(cursor), None
    except sqlite3.OperationalError:
        raise
    except Exception as error:  # the unit's own error goes to whoever waits for it
        cursor.execute("ROLLBACK TO unit")
        result, problem = None, error
    cursor.execute("RELEASE unit")
    return result, problem
