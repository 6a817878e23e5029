"""The service that is trained anew while it is run."""

from datetime import timedelta
from pathlib import Path

from training.world.log import logged_decisions
from training.world.money import make_bench, train_bundle
from training.world.retrained import Retrained

LOGGED, ONLINE = 3000, 2500


def test_the_service_is_trained_anew_on_the_log_and_on_what_it_has_decided(tmp_path: Path) -> None:
    """At each time of its schedule a bundle is trained on more decisions than the one before, the log's among them, and served from then on."""
    bench = make_bench(5, LOGGED, ONLINE, customers=1000)
    assert bench.log is not None
    assert bench.log_world is not None
    first = train_bundle(bench, 5, tmp_path / "bundle")
    schedule = [(timedelta(days=4), timedelta(hours=72)), (timedelta(days=5), timedelta(hours=72))]

    log = logged_decisions(bench.log_world, bench.log)
    policy = Retrained(bench.world.rules, first, 5, schedule, log)
    bench.world.run(policy)

    served = [bundle for bundle in policy.served if bundle is not None]
    counts = [int(bundle.description.trained_on["decisions"]) for bundle in served]
    assert policy.refusals == []
    assert len({bundle.version for bundle in served}) == 3
    assert LOGGED * 0.9 < counts[0] < counts[1] < counts[2] < LOGGED + ONLINE
