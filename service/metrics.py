"""Metrics for Prometheus: what is counted as calls come in, and what is looked up whenever somebody asks.

Imported only where `metrics_address` is set, for what the library costs in memory and start. No metric carries an identity, a campaign or anything else
that grows with customers; channels, methods, reasons and budgets are few.

Source: Prometheus, "Metric and label naming" (units in names, `_total` for counters).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from models.decide import Decision
from models.errors import SettingsInvalid, StoreUnavailable, Violation
from models.rules import Rules
from service.budgets import standings
from service.bundles import BundleHolder
from service.clock import Clock
from service.customers import Customers
from service.decisions import Decisions
from service.gen.channelchoice.v1.outcome_pb2 import OutcomeStatus, OutcomeType
from service.learning import Learner
from service.shadow import Shadow
from service.store.store import Store
from service.version import VERSION

_PREFIX = "channel_choice_"
_MICROS = 1e6
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_OURS = "channelchoice."


def _names(values: Mapping[str, int], prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for name, number in values.items()}


_TYPES = _names(dict(OutcomeType.items()), "OUTCOME_TYPE_")
_STATUSES = _names(dict(OutcomeStatus.items()), "OUTCOME_STATUS_")


class Metrics:
    """All metrics of one process; those that are looked up are added with `watch`."""

    port: int
    """The one it listens on, once it serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._seconds = self._histogram("call_seconds", "Time from a call's arrival to its answer.", "method")
        self._calls = self._counter("calls", "Calls that ended, streams included.", "method", "code")
        self._decisions = self._counter(
            "decisions", "New decisions by what was decided.", "verdict", "channel", "mode", "policy"
        )
        self._suppressed = self._counter(
            "suppressed_channels", "Channels that a new decision could not use.", "channel", "reason"
        )
        self._degraded = self._counter("degraded_decisions", "New decisions made with something missing.", "cause")
        self._priced = self._counter(
            "decided_spend", "Prices of new LIVE decisions to send, in units of the rules' currency.", "channel"
        )
        self._outcomes = self._counter("outcomes", "Reported outcomes by what became of them.", "type", "status")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, registry=self.registry, buckets=_SECONDS)

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Count new decisions."""
        for decision in decisions:
            choice, mode = decision.choice, decision.context.mode
            channel = "" if choice.action is None else choice.action.channel
            self._decisions.labels(choice.verdict.value, channel, mode.value, choice.policy).inc()
            if choice.price_micros and mode.value == "live":
                self._priced.labels(channel).inc(choice.price_micros / _MICROS)
            for suppressed in choice.suppressed:
                self._suppressed.labels(suppressed.channel, suppressed.reason.value).inc()
            for degraded in choice.degraded:
                self._degraded.labels(degraded.cause.value).inc()

    def reported(self, results: Iterable[tuple[int, int]]) -> None:
        """Count outcomes, each by the contract's numbers of its type and status; what is no type counts as one that is not said."""
        for kind, status in results:
            known = kind if kind in _TYPES else 0
            self._outcomes.labels(_TYPES[known], _STATUSES[status]).inc()

    def watch(self, collector: "State") -> None:
        """Look these up whenever somebody asks."""
        self.registry.register(collector)

    def serve(self, address: str) -> Callable[[], None]:
        """Answer `GET /metrics` on an address, and return what ends it.

        Raises
        ------
        SettingsInvalid: the address is in use, or not of this machine.
        """
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self.registry)
        except OSError as error:
            problem = f"cannot listen on {address}: {error}"
            raise SettingsInvalid([Violation(field="metrics_address", description=problem)], "settings") from error
        self.port = int(server.server_port)

        def close() -> None:
            _close(server)
            thread.join()

        return close


def _close(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Counts every call with its code, and how long it took."""

    def __init__(self, called: Callable[[str, str, float], None]) -> None:
        self._called = called

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        return _counting(handler, details.method, self._called)


def _counting(handler: Any, method: str, called: Callable[[str, str, float], None]) -> Any:
    """Return a handler that does the same and is counted."""
    is_unary = not handler.response_streaming
    name = method.removeprefix("/").removeprefix(_OURS)

    def end(context: Any, began: float, *, has_failed: bool) -> None:
        code = context.code()
        if code is None:
            code = grpc.StatusCode.UNKNOWN if has_failed else grpc.StatusCode.OK
        called(name, code.name, time.perf_counter() - began)

    def count_unary(behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(request: Any, context: Any) -> Any:
            began, has_failed = time.perf_counter(), True
            try:
                answer = await behaviour(request, context)
                has_failed = False
                return answer
            finally:
                end(context, began, has_failed=has_failed)

        return counted

    def count_stream(behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def counted(requests: Any, context: Any) -> AsyncIterator[Any]:
            began, has_failed = time.perf_counter(), True
            try:
                async for answer in behaviour(requests, context):
                    yield answer
                has_failed = False
            finally:
                end(context, began, has_failed=has_failed)

        return counted

    changed = {
        kind: (count_unary if is_unary else count_stream)(getattr(handler, kind))
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        if getattr(handler, kind) is not None
    }
    return handler._replace(**changed)


class State:
    """What is looked up in the service and its database when somebody asks for the metrics."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        clock: Clock,
        customers: Customers,
        bundles: BundleHolder,
        decisions: Decisions,
        learner: Learner,
        shadow: Shadow | None,
    ) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._customers = customers
        self._bundles = bundles
        self._decisions = decisions
        self._learner = learner
        self._shadow = shadow

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; where the database cannot be read, those that need it are left out, and `database_up` is 0."""
        yield from self._of_bundle()
        yield from self._of_persons()
        yield _gauge(
            "exploration_cost",
            "What exploring is expected to cost per thousand decisions since the start, in units of the rules' currency.",
            self._decisions.exploration_cost_micros / _MICROS,
        )
        if self._shadow is not None:
            yield from _of_shadow(self._shadow)
        try:
            found = [*self._of_budgets(), *self._of_corrections()]
            is_up = True
        except StoreUnavailable:
            found, is_up = [], False
        yield from found
        yield _gauge("database_up", "Whether the database could be read for this answer.", float(is_up))

    def _of_bundle(self) -> Iterator[Metric]:
        bundle = self._bundles.current
        info = InfoMetricFamily(_PREFIX + "build", "Versions that decide.")
        version = "" if bundle is None else bundle.version
        info.add_metric([], {"service": VERSION, "rules": self._rules.name, "bundle": version})
        yield info
        yield _gauge(
            "bundle_refused",
            "Whether the bundle that the settings name was refused when it was last looked at, whatever serves meanwhile.",
            float(bool(self._bundles.error)),
        )
        if self._bundles.load_time is not None:
            when = self._bundles.load_time.timestamp()
            yield _gauge("bundle_load_timestamp_seconds", "When the bundle that serves was loaded.", when)

    def _of_persons(self) -> Iterator[Metric]:
        matches = self._customers.matches
        for name, text, value in (
            ("persons", "Persons asked for.", matches.persons),
            ("matched_persons", "Persons asked for of whom an identity was known.", matches.matched),
            ("merged_profiles", "Profiles that were merged into others.", matches.merged),
            ("contradicting_profiles", "Merged profiles that contradicted the other.", matches.contradicting),
        ):
            yield CounterMetricFamily(_PREFIX + name, text, value=value)

    def _of_budgets(self) -> Iterator[Metric]:
        now = self._clock.now()
        found = self._store.read(lambda reader: standings(reader, self._rules, now))
        money = GaugeMetricFamily(
            _PREFIX + "budget",
            "A budget in its present period, in units of the rules' currency.",
            labels=["budget", "of"],
        )
        price = GaugeMetricFamily(
            _PREFIX + "budget_shadow_price",
            "What one more unit of a budget would earn beside itself.",
            labels=["budget"],
        )
        for standing in found:
            name = standing.budget.name
            for part, micros in (
                ("cap", standing.budget.amount),
                ("reserved", standing.spending.reserved_micros),
                ("committed", standing.spending.committed_micros),
                ("leased", standing.leased_micros),
            ):
                money.add_metric([name, part], micros / _MICROS)
            price.add_metric([name], standing.shadow_price)
        yield from (money, price)

    def _of_corrections(self) -> Iterator[Metric]:
        bundle = self._bundles.current
        factors = GaugeMetricFamily(
            _PREFIX + "correction_factor",
            "By how much the bundle's expectation is corrected by what was seen since it was trained.",
            labels=["stage", "channel"],
        )
        for found in [] if bundle is None else self._learner.corrections(bundle.version, self._clock.now()):
            factors.add_metric([found.stage, found.channel], found.factor.value)
        yield factors


def _of_shadow(shadow: Shadow) -> Iterator[Metric]:
    found = shadow.compared()
    if found is None:
        return
    yield CounterMetricFamily(
        _PREFIX + "shadow_decisions", "Decisions that the challenger was asked for too.", value=found.sums.count
    )
    yield CounterMetricFamily(
        _PREFIX + "shadow_dropped_decisions", "Decisions that found the challenger's queue full.", value=found.dropped
    )
    yield CounterMetricFamily(
        _PREFIX + "shadow_failed_decisions", "Decisions that the challenger could not score.", value=found.failed
    )
    if found.sums.count:
        yield _gauge(
            "shadow_agreement",
            "P(both would take the same action) at best, in the mean.",
            found.sums.mean("agreement"),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)
