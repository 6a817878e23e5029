"""Choosing how trees grow, within a time: Optuna's TPE sampler over leaves, rows in a leaf, learning rate, ridge and share of rows.

Only the earlier part of the log is looked at, split once more by time: each trial fits the one model and the stages of the funnel on the first three quarters of it, and is judged on its last. With L_k the log
loss of model k there (of a stage, as training.funnel has it) and L0_k that of the defaults,

    objective = mean_k L_k / L0_k

so that every model counts alike, whatever the unit of its loss; the defaults are the first trial and have 1. The later part of the log, by which `train` chooses the number of trees, calibrates and tells how good the
model is, has had no say.

Source: Akiba et al. (2019), "Optuna: A Next-generation Hyperparameter Optimization Framework"; Bergstra et al. (2011), "Algorithms for Hyper-Parameter Optimization" (TPE).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import optuna

from training.dataset import Dataset, check_learnable
from training.fit import log_loss, split
from training.funnel import fit_funnel
from training.grow import Hyperparameters, grow

_LOSS = ".loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was found."""

    hyper: Hyperparameters
    objective: float
    """Mean loss, of that of the hyperparameters given; 1 where nothing better was found."""
    trials: int
    seconds: float


def tune(
    data: Dataset,
    hyper: Hyperparameters,
    seconds: float,
    progress: Callable[[int, float], object] = lambda _trials, _best: None,
    timer: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Try hyperparameters until another trial as long as the longest would not end in time; those given are tried in any case.

    `progress` is told after each trial how many there were and the least objective. The same data, seed and number of trials find the same.

    Raises
    ------
    LogUnusable: the earlier part is too little to learn from.
    """
    began = timer()
    earlier = data.take(~split(data, hyper))
    check_learnable(earlier)
    is_later = split(earlier, hyper)
    usual = _losses(earlier, is_later, hyper)
    best, least, trials = hyper, 1.0, 1
    longest = timer() - began
    progress(trials, least)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=hyper.seed))
    study.enqueue_trial(_parameters(hyper))
    study.tell(study.ask(_space()), least)
    while timer() - began + longest <= seconds:
        started = timer()
        trial = study.ask(_space())
        tried = replace(hyper, **trial.params)
        objective = _compare(_losses(earlier, is_later, tried), usual)
        study.tell(trial, objective)
        trials += 1
        if objective < least:
            best, least = tried, objective
        longest = max(longest, timer() - started)
        progress(trials, least)
    return Tuned(hyper=best, objective=least, trials=trials, seconds=timer() - began)


def _space() -> dict[str, optuna.distributions.BaseDistribution]:
    whole, real = optuna.distributions.IntDistribution, optuna.distributions.FloatDistribution
    return {
        "leaves": whole(2, 64, log=True),
        "min_rows_in_leaf": whole(20, 1000, log=True),
        "learning_rate": real(0.01, 0.2, log=True),
        "l2": real(0.1, 1000.0, log=True),
        "row_share": real(0.4, 1.0),
    }


def _parameters(hyper: Hyperparameters) -> dict[str, object]:
    return {name: getattr(hyper, name) for name in _space()}


def _losses(
    data: Dataset, is_later: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], hyper: Hyperparameters
) -> dict[str, float]:
    """Return the loss of each model on the later part, by its name."""
    one = grow(data, data.matrix, data.response, np.ones(len(data), dtype=bool), is_later, hyper)
    found = {"one": log_loss(data.response[is_later], one.calibration.apply(one.raw_later))}
    funnel = fit_funnel(data, is_later, hyper, lambda _: None)
    if funnel is not None:
        found |= {name: value for name, value in funnel.metrics.items() if name.endswith(_LOSS)}
    return found


def _compare(losses: Mapping[str, float], usual: Mapping[str, float]) -> float:
    """Return the mean of losses, each of the usual one; a model without a loss to compare with counts for nothing."""
    ratios = [losses[name] / loss for name, loss in usual.items() if name in losses and loss > 0]
    return float(np.mean(ratios))
