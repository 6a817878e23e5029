"""Group commit: concurrent units of work share one transaction, and each is answered only after its commit.

One thread writes. It takes all units that wait, runs each so that one failing does not undo the others, and commits once. With a
synchronous commit of milliseconds this turns hundreds of rows a second into thousands, at no risk: who waits is told after the data are
on disk.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from models.errors import StoreUnavailable
from service.store.database import Cursor, Session

T = TypeVar("T")
_BATCH = 256
_ATTEMPTS = 3
_WAIT_SECONDS = 30.0
"""How long a caller waits for its commit: longer than any statement may take."""
_Ending = Callable[[Cursor], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A unit that waits, with the locks that it needs and what becomes of it."""

    unit: Callable[[Cursor], Any]
    locks: tuple[int, ...]
    future: "Future[Any]" = field(default_factory=Future)


_Answer = tuple[Any, Exception | None]


class GroupWriter:
    """Runs units of work through one session, gathered into shared commits.

    `ending` runs once after the units of a group, before its commit, and `starting` before them.
    """

    def __init__(
        self, session: Session, starting: Callable[[], None] = lambda: None, ending: _Ending = lambda _: None
    ) -> None:
        self._session = session
        self._starting = starting
        self._ending = ending
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="group-writer", daemon=True)
        self._thread.start()

    def run(self, unit: Callable[[Cursor], T], locks: Iterable[int] = ()) -> T:
        """Run a unit of work and return what it returned, once that is committed. It may be run more than once, and is kept once.

        Raises
        ------
        StoreUnavailable: the database is locked or cannot be written, or the writer is closed; try again, the unit may have been kept
        only where the database was lost in the middle of its commit. Whatever the unit itself raises undoes the unit and is raised here.
        """
        job = _Job(unit, tuple(locks))
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable("the store is closed")
            self._jobs.put(job)
        try:
            return job.future.result(_WAIT_SECONDS)  # type: ignore[no-any-return]  # the future is of this unit
        except TimeoutError as error:
            if not job.future.cancel() and job.future.done():
                return job.future.result()  # type: ignore[no-any-return]  # as above
            raise StoreUnavailable("the database does not answer; try again") from error

    def close(self) -> None:
        """Commit what waits, then stop."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join()
        self._session.close()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch, is_last = self._gather(job)
            self._keep(batch)
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

    def _keep(self, batch: list[_Job]) -> None:
        """Run a batch in one transaction and answer each of its jobs."""
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        try:
            answers = self._transact(batch)
        except Exception as error:  # whoever waits is told, and the writer goes on
            failure = StoreUnavailable(f"the database cannot be written: {error}; try again")
            failure.__cause__ = error
            answers = [(None, failure)] * len(batch)
        for job, (result, problem) in zip(batch, answers, strict=True):
            if problem is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(problem)

    def _transact(self, batch: list[_Job]) -> list[_Answer]:
        """Commit a batch, again where the transaction failed before its commit for a reason that has gone."""
        for attempt in range(_ATTEMPTS):
            try:
                answers = self._run_units(batch)
            except self._session.broken as error:
                is_repeated = attempt + 1 < _ATTEMPTS and self._session.is_worth_repeating(error)
                self._session.roll_back()
                if not is_repeated:
                    raise
            except Exception:
                self._session.roll_back()
                raise
            else:
                break
        try:
            self._session.commit()
        except Exception:
            self._session.roll_back()
            raise
        return answers

    def _run_units(self, batch: list[_Job]) -> list[_Answer]:
        self._starting()
        self._session.begin(lock for job in batch for lock in job.locks)
        answers = [self._run_unit(job) for job in batch]
        self._ending(self._session.cursor)
        return answers

    def _run_unit(self, job: _Job) -> _Answer:
        try:
            return self._session.run_unit(job.unit), None
        except self._session.broken:
            raise
        except Exception as error:  # the unit's own error goes to whoever waits for it
            return None, error
