"""Group commit: concurrent units of work share one transaction, and each is answered only after its commit.

One thread writes. It takes all units that wait, runs each so that one failing does not undo the others, and commits once. With a
synchronous commit of milliseconds this turns hundreds of rows a second into thousands, at no risk: who waits is told after the data are
on disk.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from models.errors import StoreUnavailable
from service.store.database import Cursor, Session, Undone, tell

T = TypeVar("T")
_BATCH = 256
_ATTEMPTS = 3
_WAIT_SECONDS = 30.0
"""How long a caller waits for its commit: longer than any statement may take."""
_Ending = Callable[[Cursor], None]


_Answer = tuple[Any, Exception | None]


class _Job:
    """A unit that waits, with the locks that it needs and what becomes of it; lighter than a Future, of which there is one for each row."""

    __slots__ = ("_answer", "_done", "is_given_up", "locks", "unit")

    def __init__(self, unit: Callable[[Cursor], Any], locks: tuple[int, ...]) -> None:
        self.unit = unit
        self.locks = locks
        self.is_given_up = False
        self._answer: _Answer = (None, None)
        self._done = threading.Lock()
        self._done.acquire()

    def answer(self, answer: _Answer) -> None:
        """Let the caller go on with this answer."""
        self._answer = answer
        self._done.release()

    def wait(self) -> Any:
        """Return what the unit returned, or raise what it raised, once its group is committed."""
        if not self._done.acquire(timeout=_WAIT_SECONDS):
            self.is_given_up = True
            raise StoreUnavailable("the database does not answer; try again")
        result, problem = self._answer
        if problem is not None:
            raise problem
        return result


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
        (job,) = self._put([(unit, locks)])
        return cast(T, job.wait())

    def run_each(self, units: Sequence[tuple[Callable[[Cursor], T], Iterable[int]]]) -> list[T | Exception]:
        """Run units of work that share commits; what each returned, or what it raised, once all are committed or undone. See `run`."""
        found: list[T | Exception] = []
        for job in self._put(units):
            try:
                found.append(job.wait())
            except Exception as error:  # the unit's own, which is the caller's to look at
                found.append(error)
        return found

    def _put(self, units: Sequence[tuple[Callable[[Cursor], Any], Iterable[int]]]) -> list[_Job]:
        jobs = [_Job(unit, tuple(locks)) for unit, locks in units]
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable("the store is closed")
            for job in jobs:
                self._jobs.put(job)
        return jobs

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
        batch = [job for job in batch if not job.is_given_up]
        try:
            answers = self._transact(batch)
        except Exception as error:  # whoever waits is told, and the writer goes on
            failure = StoreUnavailable(f"try again, the database cannot be written: {tell(error)}")
            failure.__cause__ = error
            answers = [(None, failure)] * len(batch)
        for job, answer in zip(batch, answers, strict=True):
            job.answer(answer)

    def _transact(self, batch: list[_Job]) -> list[_Answer]:
        """Commit a batch, again where the transaction failed before its commit for a reason that has gone."""
        is_careful = False
        for attempt in range(_ATTEMPTS):
            try:
                answers = self._run_units(batch, is_careful=is_careful)
                break
            except Undone as error:
                self._session.roll_back(error)
                is_careful = True
            except self._session.broken as error:
                is_repeated = attempt + 1 < _ATTEMPTS and self._session.is_worth_repeating(error)
                self._session.roll_back(error)
                if not is_repeated:
                    raise
            except Exception as error:
                self._session.roll_back(error)
                raise
        else:
            raise StoreUnavailable("the units could not be run")
        try:
            self._session.commit()
        except Exception as error:
            self._session.roll_back(error)
            raise
        return answers

    def _run_units(self, batch: list[_Job], *, is_careful: bool) -> list[_Answer]:
        self._starting()
        self._session.begin((lock for job in batch for lock in job.locks), is_careful=is_careful)
        answers = [self._run_unit(job) for job in batch]
        self._ending(self._session.cursor)
        self._session.finish()
        return answers

    def _run_unit(self, job: _Job) -> _Answer:
        try:
            return self._session.run_unit(job.unit), None
        except Undone:
            raise
        except self._session.broken:
            raise
        except Exception as error:  # the unit's own error goes to whoever waits for it
            return None, error
