"""Runs of all policies on the worlds of several seeds, spread over processes."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray

from training.world.contenders import CONTENDERS, NEEDS_LOG, ORACLE, SERVED, USUAL
from training.world.money import CUSTOMERS, Bench, make_bench, train_bundle
from training.world.scenarios import ScenarioName

FloatArray = NDArray[np.float64]
_KEPT_WORLDS = 3
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is run."""

    scenario: ScenarioName = "stationary"
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[str, ...] = USUAL
    """Names of policies; the cascade oracle runs always."""
    log_decisions: int = 20_000
    online_decisions: int = 12_000
    customers: int = CUSTOMERS

    @property
    def has_log(self) -> bool:
        return self.scenario != "cold_start"

    def names(self) -> list[str]:
        """Return the policies to run in the order of the table."""
        wanted = {*self.rows, ORACLE} - (frozenset() if self.has_log else NEEDS_LOG)
        return [name for name in CONTENDERS if name in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one policy came to on one world; money in roubles, all but sends and realised net value as exact expectations."""

    seed: int
    name: str
    policy: str
    """Name, as tables show it."""
    net: float
    realised_net: float
    spend: float
    caused_orders: float
    unsubscribes: float
    sends: int
    seconds: float
    """Processor time of the run, of making the policy and of the world's own sums."""
    by_message: FloatArray
    """Net value of each message, shape (m,), in order of arrival."""
    change: int
    """How many messages arrive before the scenario's change."""

    @property
    def second_half(self) -> float:
        """Net value of the later half of the messages."""
        return float(self.by_message[len(self.by_message) // 2 :].sum())


def run_bench(setting: Setting, processes: int, progress: Callable[[str], None]) -> list[Run]:
    """Run all policies on all seeds and return them by seed and in the order of the table; `progress` is told of each as it ends."""
    names, found = setting.names(), []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {seed: Path(scratch) / f"seed-{seed}" for seed in setting.seeds}
        with _pool(processes) as pool:
            trained: list[Future[float]] = []
            if SERVED.intersection(names):
                trained = [pool.submit(_train, setting, seed, folder) for seed, folder in folders.items()]
            runs = [
                pool.submit(_run, setting, seed, name, None)
                for seed in setting.seeds
                for name in names
                if name not in SERVED
            ]
            if trained:
                progress(f"training {len(trained)} bundles")
            for number, training in enumerate(as_completed(trained), start=1):
                progress(f"bundle {number} of {len(trained)} trained, {training.result():.0f} s of CPU")
            runs += [
                pool.submit(_run, setting, seed, name, folders.get(seed))
                for seed in setting.seeds
                for name in names
                if name in SERVED
            ]
            for number, done in enumerate(as_completed(runs), start=1):
                run = done.result()
                found.append(run)
                progress(
                    f"{number} of {len(runs)}: seed {run.seed}, {run.policy}: {run.net:,.0f} net, {run.seconds:.0f} s of CPU"
                )
    return sorted(found, key=lambda run: (run.seed, names.index(run.name)))


def _pool(processes: int) -> Executor:
    """Return processes of one thread each, which numerical libraries read from the environment when imported; for one, this process does."""
    if processes == 1:
        return ThreadPoolExecutor(1)
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


@lru_cache(maxsize=_KEPT_WORLDS)
def _bench(setting: Setting, seed: int) -> Bench:
    return make_bench(seed, setting.log_decisions, setting.online_decisions, setting.scenario, setting.customers)


def _train(setting: Setting, seed: int, folder: Path) -> float:
    """Train a seed's bundle into a folder and return the processor time it took."""
    bench, began = _bench(setting, seed), process_time()
    train_bundle(bench, seed, folder)
    return process_time() - began


def _run(setting: Setting, seed: int, name: str, folder: Path | None) -> Run:
    bench, began = _bench(setting, seed), process_time()
    policy = CONTENDERS[name](bench, folder)
    result = bench.world.run(policy)
    return Run(
        seed=seed,
        name=name,
        policy=policy.name,
        net=result.expected.net,
        realised_net=result.realised.net,
        spend=result.expected.spend,
        caused_orders=result.expected.caused_orders,
        unsubscribes=result.expected.unsubscribes,
        sends=sum(result.sends.values()),
        seconds=process_time() - began,
        by_message=result.by_message,
        change=int(np.searchsorted(bench.world.messages.arrive, bench.change_hour)),
    )
