"""The bundle that serves: loaded beside the old one, verified, timed, swapped; a bad one leaves the old one serving."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from models.bundle import Bundle, TimeLimit, load_bundle
from models.errors import BundleError
from service.clock import Clock
from service.log import get_logger
from service.registry import Registry, is_alias

_log = get_logger(__name__)
_NO_LIMIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A bundle, and since when it serves."""

    bundle: Bundle
    load_time: datetime


class BundleHolder:
    """Holds one bundle that serves. Reading `serving` or `current` is safe from any thread; a decision reads it once, and ends on what it read.

    `limit_seconds` is how long a bundle may take to score its golden rows, `told` is called after every load with whether it was good.
    """

    def __init__(
        self,
        source: str,
        registry: Registry,
        clock: Clock,
        limit_seconds: float = _NO_LIMIT,
        told: Callable[[bool], object] = lambda _: None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.source = source
        self.serving: Serving | None = None
        self.error = ""
        self.told = told
        self._registry = registry
        self._clock = clock
        self._limit = TimeLimit(seconds=limit_seconds, timer=timer)
        self._served_version = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Bundle | None:
        serving = self.serving
        return None if serving is None else serving.bundle

    @property
    def load_time(self) -> datetime | None:
        serving = self.serving
        return None if serving is None else serving.load_time

    def load(self) -> bool:
        """Load what the source points to now; tell whether another bundle serves than before.

        Raises
        ------
        BundleError: there is none or it does not verify; what served before goes on serving, and `error` says why.
        """
        if not self.source:
            return False
        with self._lock:
            try:
                is_changed = self._load()
            except BundleError as error:
                self._refuse(str(error))
                raise
            except Exception as error:  # whatever a broken bundle does to its reader, the one before goes on serving
                wrapped = BundleError(self.source, f"cannot be loaded: {type(error).__name__}: {error}")
                self._refuse(str(wrapped))
                raise wrapped from error
            self.error = ""
            self.told(True)
            return is_changed

    def _refuse(self, problem: str) -> None:
        if problem != self.error:
            serves = "the rule cascade" if self.current is None else self.current.version
            _log.warning("bundle refused, what served before goes on", source=self.source, serves=serves, error=problem)
        self.error = problem
        self.told(False)

    def _load(self) -> bool:
        if is_alias(self.source):
            version = self._registry.find(self.source)
            if version.version == self._served_version and self.current is not None:
                return False
            bundle = load_bundle(self._registry.fetch(version), self._limit)
            self._served_version = version.version
        else:
            # A link is followed once, so that no file comes from where it points to a moment later.
            try:
                bundle = load_bundle(Path(self.source).resolve(), self._limit)
            except BundleError as error:
                raise type(error)(self.source, error.problem) from error
        if self.current is not None and bundle.version == self.current.version:
            return False
        self.serving = Serving(bundle=bundle, load_time=self._clock.now())
        _log.info("bundle serves", version=bundle.version, source=self.source, trees=bundle.tree_count)
        return True

    def watch(self, seconds: float) -> None:
        """Look the alias up again and again until `close`."""
        if is_alias(self.source):
            self._thread = threading.Thread(target=self._watch, args=(seconds,), name="bundle-watcher", daemon=True)
            self._thread.start()

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.load()
            except BundleError:
                continue  # it is in the log and in `error`

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
