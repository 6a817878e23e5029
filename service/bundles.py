"""The bundle that serves: loaded beside the old one, verified, swapped; a bad one leaves the old one serving."""

import threading
from datetime import datetime
from pathlib import Path

import structlog

from models.bundle import Bundle, load_bundle
from models.errors import BundleError
from service.clock import Clock
from service.registry import Registry, is_alias

_log = structlog.get_logger(__name__)


class BundleHolder:
    """Holds the bundle that serves. Reading `current` is safe from any thread; a decision reads it once."""

    def __init__(self, source: str, registry: Registry, clock: Clock) -> None:
        self.source = source
        self.current: Bundle | None = None
        self.load_time: datetime | None = None
        self.error = ""
        self._registry = registry
        self._clock = clock
        self._served_version = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> bool:
        """Load what the source points to now; tell whether another bundle serves than before.

        Raises
        ------
        BundleError: there is none or it does not verify; what served before goes on serving.
        """
        if not self.source:
            return False
        with self._lock:
            try:
                return self._load()
            except BundleError as error:
                self.error = str(error)
                raise

    def _load(self) -> bool:
        if is_alias(self.source):
            version = self._registry.find(self.source)
            if version.version == self._served_version and self.current is not None:
                self.error = ""
                return False
            bundle = load_bundle(self._registry.fetch(version))
            self._served_version = version.version
        else:
            bundle = load_bundle(Path(self.source))
        self.error = ""
        if self.current is not None and bundle.version == self.current.version:
            return False
        self.current = bundle
        self.load_time = self._clock.now()
        _log.info("bundle serves", version=bundle.version, source=self.source, trees=bundle.tree_count)
        return True

    def watch(self, seconds: float) -> None:
        """Look the alias up again and again until `close`."""
        if is_alias(self.source):
            self._thread = threading.Thread(target=self._watch, args=(seconds,), name="bundle-watcher", daemon=True)
            self._thread.start()

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            known = self.error
            try:
                self.load()
            except BundleError as error:
                if str(error) != known:
                    _log.warning("bundle not loaded, the one before goes on serving", error=str(error))

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
