"""Growing trees here and on a Dask cluster of two worker processes."""

import numpy as np
import pytest
from distributed import Client

from models.errors import LogUnusable
from tests.training.examples import world
from training.boosting import DaskEngine, LocalEngine, Rows, open_engine
from training.fit import fit
from training.grow import Hyperparameters, parameters

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
SETTINGS = parameters(Hyperparameters(), 6000)


def rows(count: int, seed: int, *, begin: float | None = None) -> Rows:
    """Labels that depend on two of three columns, one of them a category."""
    rng = np.random.default_rng(seed)
    kind, size, noise = rng.integers(4, size=count), rng.normal(size=count), rng.normal(size=count)
    logit = np.array([-1.5, 0.5, -0.5, 1.0])[kind] + size
    label = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return Rows(
        matrix=np.column_stack([kind.astype(np.float64), size, noise]),
        label=label,
        begin=None if begin is None else np.full(count, begin),
        categories=(0,),
        names=("kind", "size", "noise"),
    )


def loss(scores: np.ndarray, label: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, scores) - label * scores))


@pytest.mark.parametrize("begin", [None, -0.7])
def test_a_cluster_grows_as_good_a_model(cluster: str, begin: float | None) -> None:
    """Trees of two workers, begun from a score or not, predict unseen rows as well as those grown here, within 1 %."""
    train, unseen = rows(6000, 0, begin=begin), rows(4000, 1)
    losses = {}
    with open_engine("dask", cluster) as dask:
        assert isinstance(dask, DaskEngine)
        for name, engine in (("local", LocalEngine()), ("dask", dask)):
            booster = engine.grow(SETTINGS, train, 60)
            assert booster.num_trees() == 60
            scores = np.asarray(booster.predict(unseen.matrix, raw_score=True)) + (begin or 0.0)
            losses[name] = loss(scores, unseen.label)

    assert losses["local"] < 0.95 * loss(np.zeros(4000), unseen.label)
    assert losses["dask"] == pytest.approx(losses["local"], rel=0.01)


def test_a_cluster_stops_where_later_rows_say(cluster: str) -> None:
    """The number of trees is that of the least later loss, and about as good as early stopping here finds."""
    train, later = rows(6000, 0), rows(2000, 2)
    here = LocalEngine().choose(SETTINGS, train, later, 300, 20)
    with open_engine("dask", cluster) as dask:
        there = dask.choose(SETTINGS, train, later, 300, 20)

    curve = there.curves["later"]
    assert there.trees == int(np.argmin(curve)) + 1 < 300
    assert curve[there.trees - 1] == pytest.approx(min(here.curves["later"]), rel=0.02)


def test_a_bundle_trained_on_a_cluster_is_as_good(cluster: str) -> None:
    """The whole fit, its baseline, stages and calibration, by two workers: later orders are told as well as by the fit here, within 2 %."""
    data = world(6000, is_seen_logged=True)
    hyper = Hyperparameters(trees=60)
    here = fit(data, hyper, "world", lambda _: None)
    with open_engine("dask", cluster) as dask:
        there = fit(data, hyper, "world", lambda _: None, engine=dask)

    assert set(there.stage_texts) == set(here.stage_texts)
    assert there.metrics["later.logloss"] == pytest.approx(here.metrics["later.logloss"], rel=0.02)


def test_a_cluster_without_workers_says_so(cluster: str) -> None:
    """What the workers cannot do is told as a refusal with the way out, not as a traceback of theirs."""
    with Client(cluster) as client:  # type: ignore[no-untyped-call]  # dask has no types
        engine = DaskEngine(client)
        with pytest.raises(LogUnusable, match="--engine local"):
            engine.grow(SETTINGS | {"max_bin": -5}, rows(4000, 0), 5)
