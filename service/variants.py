"""Bundles that variants of experiments name, each loaded and watched as the one that serves everybody."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from models.bundle import Bundle
from models.errors import BundleError
from service.bundles import BundleHolder
from service.clock import Clock
from service.registry import Registry


class VariantBundles:
    """Holds a bundle for each source. Reading is safe from any thread."""

    def __init__(self, sources: Iterable[str], registry: Registry, clock: Clock, limit_seconds: float) -> None:
        self._holders = {source: BundleHolder(source, registry, clock, limit_seconds) for source in sorted(sources)}

    @property
    def current(self) -> Mapping[str, Bundle]:
        """The bundles that are loaded, by source."""
        return {source: holder.current for source, holder in self._holders.items() if holder.current is not None}

    @property
    def missing(self) -> frozenset[str]:
        """Sources of which no bundle is loaded."""
        return frozenset(source for source, holder in self._holders.items() if holder.current is None)

    @property
    def errors(self) -> dict[str, str]:
        """Why the last load of a source failed, of those where it did."""
        return {source: holder.error for source, holder in self._holders.items() if holder.error}

    def load(self) -> None:
        """Load each bundle; one that does not load says so in the log, and keeps its experiments from running."""
        for holder in self._holders.values():
            with suppress(BundleError):
                holder.load()

    def watch(self, seconds: float) -> None:
        """Look aliases up again and again until `close`."""
        for holder in self._holders.values():
            holder.watch(seconds)

    def close(self) -> None:
        for holder in self._holders.values():
            holder.close()
