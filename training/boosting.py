"""Growing trees, in this process or by the workers of a Dask cluster.

Both grow with LightGBM's own parameters from the same rows. A cluster's workers hold a part of the rows each and agree on every split
(lightgbm.dask), so that what comes out is as good, and not the same to the bit: histograms are summed in another order, and
rows are sampled by each worker. How many trees are grown is chosen here, from the scores of the later rows tree by tree.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightgbm as lgb
import numpy as np
from lightgbm.callback import CallbackEnv
from numpy.typing import NDArray

from models.errors import InvalidInput, LogUnusable, Violation

FloatArray = NDArray[np.float64]
_CONNECT_SECONDS = 20
_LEAST_ROWS = 1000
"""With fewer for each worker, trees are grown here: the workers would talk more than they count."""
_NO_CURVE: Mapping[str, list[float]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What trees are grown on: a matrix of shape (n, n_columns), labels (n,) and where scores begin, (n,) or 0."""

    matrix: FloatArray
    label: FloatArray
    begin: FloatArray | None = None
    categories: tuple[int, ...] = ()
    """Places of columns that are categories."""
    names: tuple[str, ...] | None = None

    def dataset(self, like: lgb.Dataset | None = None) -> lgb.Dataset:
        """Return them in LightGBM's form."""
        return lgb.Dataset(
            self.matrix,
            label=self.label,
            init_score=self.begin,
            reference=like,
            categorical_feature=list(self.categories),
            feature_name="auto" if self.names is None else list(self.names),
            free_raw_data=False,
            params={"verbosity": -1},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Trees grown on earlier rows, and how many of them later rows say are best; 0 where none helps."""

    booster: lgb.Booster
    trees: int
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    """Loss by number of trees, of the earlier rows where it is known and of the later ones."""


class Engine(Protocol):
    """Grows trees."""

    def grow(self, settings: Mapping[str, Any], rows: Rows, trees: int) -> lgb.Booster:
        """Grow so many trees."""
        ...

    def choose(self, settings: Mapping[str, Any], rows: Rows, later: Rows, most: int, patience: int) -> Chosen:
        """Grow trees until the later rows' loss has not fallen for `patience` of them, `most` at the most."""
        ...


class LocalEngine:
    """Grows trees in this process, and tells of each."""

    def __init__(self, progress: Callable[[int], object] = lambda _: None) -> None:
        self._progress = progress

    def grow(self, settings: Mapping[str, Any], rows: Rows, trees: int) -> lgb.Booster:
        """Grow so many trees."""
        return lgb.train(dict(settings), rows.dataset(), num_boost_round=trees, callbacks=[self._grown])

    def _grown(self, _: CallbackEnv) -> None:
        self._progress(1)

    def choose(self, settings: Mapping[str, Any], rows: Rows, later: Rows, most: int, patience: int) -> Chosen:
        """Grow with early stopping."""
        curves: dict[str, dict[str, list[float]]] = {}
        train = rows.dataset()
        booster = lgb.train(
            dict(settings),
            train,
            num_boost_round=most,
            valid_sets=[train, later.dataset(train)],
            valid_names=["earlier", "later"],
            callbacks=[
                self._grown,
                lgb.early_stopping(patience, verbose=False),
                lgb.record_evaluation(curves),
            ],
        )
        losses = {name: next(iter(values.values())) for name, values in curves.items()}
        return Chosen(booster=booster, trees=booster.best_iteration, curves=losses)


class DaskEngine:
    """Grows trees by the workers of a cluster, each holding a part of the rows."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._workers = max(1, len(client.scheduler_info()["workers"]))

    def grow(self, settings: Mapping[str, Any], rows: Rows, trees: int) -> lgb.Booster:
        """Grow so many trees.

        Raises
        ------
        LogUnusable: a worker was lost or could not grow them.
        """
        if len(rows.label) < _LEAST_ROWS * self._workers:
            return LOCAL.grow(settings, rows, trees)
        import dask.array as da

        parameters = dict(settings)
        objective = parameters.pop("objective")
        for name in ("num_threads", "deterministic", "force_row_wise", "verbosity"):
            parameters.pop(name, None)
        model = lgb.DaskLGBMRegressor(
            client=self._client,
            objective=objective,
            n_estimators=trees,
            tree_learner="data",
            verbosity=-1,
            **parameters,
        )
        chunk = -(-len(rows.label) // self._workers)
        # A column without any value ends LightGBM's workers; no tree looks at it, so it may as well be a number.
        is_empty: NDArray[np.bool_] = np.asarray(np.isnan(rows.matrix).all(axis=0))
        matrix = np.where(is_empty, 0.0, rows.matrix)
        categories = [place for place in rows.categories if not is_empty[place]]
        parts = {
            "X": da.from_array(matrix, chunks=(chunk, rows.matrix.shape[1])),  # type: ignore[no-untyped-call]  # dask has no types
            "y": da.from_array(rows.label, chunks=chunk),  # type: ignore[no-untyped-call]  # as above
        }
        if rows.begin is not None:
            parts["init_score"] = da.from_array(rows.begin, chunks=chunk)  # type: ignore[no-untyped-call]  # as above
        names = "auto" if rows.names is None else list(rows.names)
        try:
            model.fit(**parts, categorical_feature=categories, feature_name=names)
        except (lgb.basic.LightGBMError, OSError, RuntimeError) as error:
            raise LogUnusable(f"the cluster could not grow the trees: {error}; try again, or --engine local") from error
        return lgb.Booster(model_str=model.booster_.model_to_string())

    def choose(self, settings: Mapping[str, Any], rows: Rows, later: Rows, most: int, patience: int) -> Chosen:
        """Grow all trees, and look at the later rows' loss after each until it has not fallen for so many of them."""
        booster = self.grow(settings, rows, most)
        scores = np.zeros(len(later.label)) if later.begin is None else later.begin.copy()
        losses: list[float] = []
        for tree in range(booster.num_trees()):
            scores += np.asarray(
                booster.predict(later.matrix, raw_score=True, start_iteration=tree, num_iteration=1), dtype=np.float64
            )
            losses.append(_loss(str(settings["objective"]), scores, later.label))
            if len(losses) - int(np.argmin(losses)) > patience:
                break
        return Chosen(booster=booster, trees=int(np.argmin(losses)) + 1 if losses else 0, curves={"later": losses})


def _loss(objective: str, scores: FloatArray, label: FloatArray) -> float:
    """Return LightGBM's own loss of raw scores: log loss, or that of counts."""
    if objective == "poisson":
        return float(np.mean(np.exp(scores) - label * scores))
    return float(np.mean(np.logaddexp(0, scores) - label * scores))


LOCAL: Engine = LocalEngine()


@contextmanager
def open_engine(name: str, cluster: str | None, progress: Callable[[int], object] = lambda _: None) -> Iterator[Engine]:
    """Give the engine of that name; `cluster` is the scheduler's address for dask, `progress` is told of each tree that is grown here.

    Raises
    ------
    LogUnusable: there is no cluster at that address, or Dask is not installed.
    """
    if name == "local":
        yield LocalEngine(progress)
        return
    with open_cluster(cluster or "") as client:
        yield DaskEngine(client)


@contextmanager
def open_cluster(address: str) -> Iterator[Any]:
    """Connect to a Dask cluster whose workers have this code.

    Raises
    ------
    InvalidInput: the address is empty. LogUnusable: there is none at that address, or Dask is not installed.
    """
    if not address:
        raise InvalidInput(
            [Violation(field="--cluster", description="is missing; name the scheduler's address")], "dask"
        )
    try:
        from distributed import Client
    except ImportError as error:
        raise LogUnusable(
            "dask is not installed; install the extra `distributed`, or leave out --engine dask"
        ) from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]  # dask has no types
    except (OSError, ValueError) as error:
        raise LogUnusable(f"no Dask scheduler answers at {address!r}: {error}; mend --cluster") from error
    with client:
        yield client
