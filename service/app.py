"""The composition root: everything is put together here, and taken apart in reverse."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from models.errors import BundleError
from models.experiments import bundle_sources
from models.rules import Rules, read_rules
from service.bundles import BundleHolder
from service.clock import Clock, RequestClock, SystemClock, ignore
from service.customers import Customers
from service.decisions import Decisions
from service.experiments import Experiments
from service.learning import Learner
from service.ledger import ledger_of
from service.outcomes import Outcomes
from service.registry import Registry
from service.rpc.handlers import Pool
from service.rpc.server import Server
from service.rpc.servicers import AdminServicer, ChannelChoiceServicer, CustomerServicer, OutcomeServicer
from service.settings import Settings
from service.shadow import Shadow
from service.store.identity import load_keys
from service.store.store import Store
from service.variants import VariantBundles


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A service that is bound but does not answer yet."""

    server: Server
    rules: Rules
    bundles: BundleHolder
    metrics_port: int | None = None


@contextlib.contextmanager
def open_app(settings: Settings, clock: Clock | None = None) -> Iterator[App]:
    """Put the service together; at the end of the block everything is closed, and what was accepted is on disk.

    Raises
    ------
    SettingsInvalid, RulesInvalid, StoreInvalid: it cannot start like this; each says what to do.
    """
    request_clock = RequestClock()
    clock = clock or (SystemClock() if settings.clock == "system" else request_clock)
    rules = read_rules(settings.rules_file)
    with contextlib.ExitStack() as closing:
        store = Store(settings.database_url, settings.database_connections)
        closing.callback(store.close)
        keys = load_keys(store, settings.database_url, settings.identity_key_file, settings.identity_previous_key_file)
        token = settings.mlflow_token.get_secret_value() if settings.mlflow_token is not None else None
        registry = Registry(settings.mlflow_uri, settings.bundle_cache, token)
        limit = settings.bundle_limit_ms / 1000
        bundles = BundleHolder(settings.bundle, registry, clock, limit)
        closing.callback(bundles.close)
        variants = VariantBundles(bundle_sources(rules), registry, clock, limit)
        closing.callback(variants.close)
        variants.load()
        with contextlib.suppress(BundleError):  # it is in the log, in the status and in health
            bundles.load()
        shadow = _make_shadow(settings, registry, clock, rules, bundles)
        if shadow is not None:
            closing.callback(shadow.challenger.close)
            closing.callback(shadow.close)
        ledger = ledger_of(store)
        customers = Customers(store, rules, clock, keys, ledger)
        observe = request_clock.observe if settings.clock == "request" else ignore
        # By a clock that follows the requests, answers are to hang on the requests alone, and not on when a thread is done.
        learner = Learner(store, settings.correction_poll_seconds, is_aside=settings.clock == "system")
        closing.callback(learner.close)
        decisions = Decisions(store, rules, bundles, clock, customers, learner, keys, variants, ledger)
        closing.callback(decisions.close)
        metrics = None
        if settings.metrics_address:
            from service.metrics import (  # who asks for none does not pay for the library
                Metrics,
                MetricsInterceptor,
                State,
            )

            metrics = Metrics()
            metrics.watch(State(store, rules, clock, customers, bundles, decisions, learner, shadow))
        tellers = [*([] if shadow is None else [shadow.tell]), *([] if metrics is None else [metrics.decided])]
        pool = Pool(settings.workers + settings.streams, settings.streams)
        closing.callback(pool.close)
        choice = ChannelChoiceServicer(decisions, rules, clock, pool, observe, tellers)
        closing.callback(choice.close)
        server = Server(
            settings,
            choice,
            OutcomeServicer(
                Outcomes(store, rules, clock, customers, keys, ledger),
                rules,
                clock,
                pool,
                observe,
                [] if metrics is None else [metrics.reported],
            ),
            CustomerServicer(customers, rules, clock, pool),
            AdminServicer(
                store,
                rules,
                clock,
                customers,
                bundles,
                decisions,
                learner,
                Experiments(store, rules, clock, variants),
                clock.now(),
                pool,
                shadow,
            ),
            [] if metrics is None else [MetricsInterceptor(metrics.called)],
        )
        if metrics is not None:
            closing.callback(metrics.serve(settings.metrics_address))
        bundles.told = server.show_bundle
        if bundles.source:
            server.show_bundle(not bundles.error)
        bundles.watch(settings.bundle_poll_seconds)
        variants.watch(settings.bundle_poll_seconds)
        if shadow is not None:
            shadow.challenger.watch(settings.bundle_poll_seconds)
            shadow.start()
        yield App(server=server, rules=rules, bundles=bundles, metrics_port=None if metrics is None else metrics.port)


def _make_shadow(
    settings: Settings, registry: Registry, clock: Clock, rules: Rules, champion: BundleHolder
) -> Shadow | None:
    """Return what compares a challenger with the champion, None where the settings name no challenger."""
    if not settings.shadow_bundle:
        return None
    challenger = BundleHolder(settings.shadow_bundle, registry, clock, settings.bundle_limit_ms / 1000)
    with contextlib.suppress(BundleError):  # it is in the log and in the status
        challenger.load()
    return Shadow(
        challenger,
        champion,
        rules,
        size=settings.shadow_queue,
        share=settings.shadow_share,
        log_seconds=settings.shadow_log_seconds,
    )
