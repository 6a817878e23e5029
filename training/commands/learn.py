"""The commands that learn from a log: dataset, train, starter."""

import argparse
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InvalidInput, Violation
from models.rules import read_rules
from training.options import (
    DEFAULT_RULES,
    LOG,
    WINDOW_HOURS,
    Command,
    add_as_of,
    add_engine,
    add_most_decisions,
    add_registry,
    add_window,
    moment,
    number,
)

if TYPE_CHECKING:
    from training.dataset import Dataset
    from training.grow import Hyperparameters


def add_commands(command: Command) -> None:
    """Add them to the parser of `python -m training`."""
    dataset = command(
        "dataset", _dataset, "write training data as Parquet files with a digest and a description of every column"
    )
    dataset.add_argument("--log", default=LOG, metavar="URL", help=f"decision log (default: {LOG})")
    dataset.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder for the files")
    add_window(dataset)
    dataset.add_argument("--until", type=moment, help="only decisions before this UTC time")
    add_as_of(dataset)

    train = command(
        "train", _train, "fit a response model on a decision log, as an MLflow run with a registered bundle"
    )
    train.add_argument("--log", metavar="URL", help=f"decision log (default: {LOG})")
    train.add_argument("--data", type=Path, metavar="FOLDER", help="in place of a log: what `dataset` has written")
    add_window(train, None, "72, or that of --data")
    train.add_argument("--until", type=moment, help="only decisions before this UTC time, such as 2026-11-01T00:00")
    add_as_of(train)
    add_most_decisions(train)
    train.add_argument("--exclude", nargs="*", default=[], metavar="FEATURE", help="features to leave out")
    add_registry(train)
    train.add_argument(
        "--trees", type=number(int, 1), default=600, help="most trees; early stopping takes fewer (default: 600)"
    )
    train.add_argument("--leaves", type=number(int, 2), default=8, help="leaves of a tree (default: 8)")
    train.add_argument(
        "--tune-minutes",
        type=number(float, 0, is_included=False),
        metavar="MINUTES",
        help="first look for better hyperparameters on the earlier part of the data, for so long (default: not at all)",
    )
    train.add_argument("--seed", type=number(int, 0), default=0)
    add_engine(train)

    starter = command("starter", _starter, "make the starter bundle from a built-in simulated log")
    starter.add_argument("folder", type=Path, help="where to write it")
    starter.add_argument("--if-missing", action="store_true", help="do nothing where there is a bundle")
    starter.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file")


def _dataset(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from training.frames import DESCRIPTION, write_frames

    window = timedelta(hours=options.window_hours)
    with tqdm(desc="dataset", unit=" decisions", disable=None) as bar:
        found = write_frames(options.log, options.to, window, options.until, options.as_of, bar.update)
    print(f"{found.decisions} decisions, {found.closed} of them with a closed window, in {len(found.files)} files")
    print(f"{len(found.columns)} columns, described in {options.to / DESCRIPTION}")
    print(f"digest {found.digest}")
    print(f"next: python -m training train --data {options.to}")


def _training_data(options: argparse.Namespace) -> "tuple[Dataset, str]":
    """Return what to learn from, and what its log is called.

    Raises
    ------
    InvalidInput: options that do not go together.
    """
    from tqdm import tqdm

    from training.dataset import name_log, read_dataset
    from training.frames import read_description, read_frames

    if options.data is None:
        log = options.log or LOG
        window = timedelta(hours=options.window_hours or WINDOW_HOURS)
        with tqdm(desc="read", unit=" decisions", disable=None) as bar:
            data = read_dataset(
                log,
                window,
                options.until,
                options.exclude,
                options.as_of,
                with_early=True,
                most=options.most_decisions,
                progress=bar.update,
            )
        return data, name_log(log)
    given = {"--log": options.log, "--window-hours": options.window_hours, "--as-of": options.as_of}
    found = [
        Violation(field=name, description="was settled when --data was written; leave it out")
        for name, value in given.items()
        if value is not None
    ]
    if found:
        raise InvalidInput(found, "train")
    with tqdm(desc="read", unit=" decisions", disable=None) as bar:
        data = read_frames(
            options.data,
            options.until,
            options.exclude,
            with_early=True,
            most=options.most_decisions,
            progress=bar.update,
        )
    return data, read_description(options.data).log


def _train(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from training.boosting import open_engine
    from training.dataset import short_name
    from training.doubts import find_doubts
    from training.fit import fit
    from training.grow import Hyperparameters
    from training.registry import MlflowRegistry, reach

    reach(options.mlflow, options.experiment)
    data, log = _training_data(options)
    window = timedelta(hours=data.window_hours)
    for doubt in find_doubts(data):
        print(f"note: {doubt}")
    if data.early is not None:
        print(
            f"{len(data.early)} decisions with an open window teach what was seen and clicked so far, and nothing of orders"
        )
    hyper = Hyperparameters(seed=options.seed, trees=options.trees, leaves=options.leaves)
    metrics: dict[str, float] = {}
    if options.tune_minutes is not None:
        hyper, metrics = _tune(data, hyper, options.tune_minutes)
    with (
        tqdm(desc="grow", unit=" trees", disable=None) as bar,
        open_engine(options.engine, options.cluster, bar.update) as engine,
    ):
        fitted = fit(data, hyper, short_name(log), bar.write, engine)
    fitted = replace(fitted, metrics=fitted.metrics | metrics)
    registry = MlflowRegistry(options.mlflow, options.experiment)
    registered = registry.keep(fitted, data, hyper, window, options.name, log)
    for name, value in fitted.metrics.items():
        print(f"  {name:28} {value:.5g}")
    print(
        f"{registered.name} version {registered.version}, bundle {registered.bundle_version}, run {registered.run_id}"
    )
    print(
        f"next: python -m training promote --name {registered.name} --version {registered.version} --mlflow {options.mlflow}"
    )


def _tune(data: "Dataset", hyper: "Hyperparameters", minutes: float) -> "tuple[Hyperparameters, dict[str, float]]":
    """Return the hyperparameters found, and metrics of the search."""
    from tqdm import tqdm

    from training.tune import tune

    with tqdm(desc="tune", unit=" trials", disable=None) as bar:

        def told(_: int, least: float) -> None:
            bar.set_postfix_str(f"loss {least:.4f} of the usual", refresh=False)
            bar.update()

        found = tune(data, hyper, 60 * minutes, told)
    changed = ", ".join(
        f"{name} {value:.4g}" for name, value in asdict(found.hyper).items() if value != getattr(hyper, name)
    )
    print(
        f"{found.trials} trials in {found.seconds:.0f} s, loss {found.objective:.4f} of the usual: {changed or 'nothing better was found'}"
    )
    return found.hyper, {
        "tune.trials": float(found.trials),
        "tune.seconds": found.seconds,
        "tune.objective": found.objective,
    }


def _starter(options: argparse.Namespace) -> None:
    from training.starter import has_bundle, make_starter

    if options.if_missing and has_bundle(options.folder):
        print(f"{options.folder} holds a bundle already")
        return
    print(f"{options.folder}: {make_starter(options.folder, read_rules(options.rules))}")
