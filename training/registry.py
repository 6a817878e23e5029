"""MLflow: runs, the model registry and its aliases. The only place that imports mlflow."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow  # its telemetry is turned off first
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from models.bundle import load_bundle
from models.errors import BundleMissing, LogUnusable
from training.dataset import Dataset
from training.fit import Fitted, save
from training.grow import Hyperparameters
from training.plots import plot_fit

CHAMPION = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version in the registry, with the run it came from and the bundle in it."""

    name: str
    version: str
    run_id: str
    bundle_version: str


class MlflowRegistry:
    """One MLflow tracking store with its registry, by URI."""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None = None) -> None:
        """Open a store; `artifacts` is where an experiment made here keeps its files, by default where MLflow does.

        Raises
        ------
        LogUnusable: MLflow cannot open such a store.
        """
        self._uri = uri
        self._artifacts = artifacts
        self._experiment = experiment
        try:
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        except MlflowException as error:
            raise LogUnusable(f"the registry {uri} cannot be opened: {error.message}; mend --mlflow") from error

    @contextmanager
    def _run(self, run_name: str) -> Iterator[str]:
        """Open a run, and close it as failed where the block raises; what MLflow refuses is raised as LogUnusable."""
        try:
            experiment = self._client.get_experiment_by_name(self._experiment)
            experiment_id = experiment.experiment_id if experiment else self._new_experiment()
            run_id = self._client.create_run(experiment_id, run_name=run_name).info.run_id
            try:
                yield run_id
            except BaseException:
                with suppress(MlflowException):  # the block's own error is the one to be told
                    self._client.set_terminated(run_id, status="FAILED")
                raise
            self._client.set_terminated(run_id)
        except MlflowException as error:
            raise LogUnusable(
                f"the tracking store {self._uri} does not take the run: {error.message}; try again, or mend --mlflow"
            ) from error

    def _new_experiment(self) -> str:
        location = None if self._artifacts is None else self._artifacts.resolve().as_uri()
        return self._client.create_experiment(self._experiment, artifact_location=location)

    def keep(self, fitted: Fitted, data: Dataset, hyper: Hyperparameters, window: timedelta, name: str) -> Registered:
        """Log a fit as a run with its bundle, and register that as a new version of `name`.

        Raises
        ------
        LogUnusable: MLflow refuses it or does not answer.
        """
        with self._run(f"train {name}") as run_id, tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            version = save(fitted, folder / "bundle", name)
            parameters = {
                **asdict(hyper),
                **fitted.description.trained_on,
                "window_hours": window.total_seconds() / 3600,
            }
            tags = {
                "data.digest": data.digest,
                "bundle.version": version,
                "mlflow.note.content": _note(fitted, version),
                "mlflow.source.name": "python -m training train",
                "mlflow.source.type": "LOCAL",
            }
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, 0, 0) for key, value in fitted.metrics.items() if value == value],
                params=[Param(key, str(value)) for key, value in parameters.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            self._client.log_inputs(run_id, datasets=[_dataset_input(fitted, data)])
            for path in plot_fit(fitted, folder / "plots"):
                self._client.log_artifact(run_id, str(path), "plots")
            self._client.log_artifacts(run_id, str(folder / "bundle"), "bundle")
            location = self._client.get_run(run_id).info.artifact_uri + "/bundle"
            self._make_model(name)
            registered = self._client.create_model_version(name, source=location, run_id=run_id)
            self._client.set_model_version_tag(name, registered.version, "bundle.version", version)
        return Registered(name=name, version=str(registered.version), run_id=run_id, bundle_version=version)

    def promote(self, name: str, version: str | None) -> Registered:
        """Point the alias champion at a version, the newest where none is named, after its bundle verified.

        Raises
        ------
        LogUnusable: there is no such registry or version. BundleError: its bundle cannot be had or does not verify.
        """
        try:
            found = self._client.search_model_versions(f"name = '{name}'")
        except MlflowException as error:
            raise LogUnusable(f"the registry {self._uri} does not answer: {error.message}") from error
        if not found:
            raise LogUnusable(f"the registry {self._uri} has no version of {name}; train one first")
        versions = {str(entry.version): entry for entry in found}
        chosen = max(versions, key=int) if version is None else version
        if chosen not in versions:
            raise LogUnusable(f"{name} has no version {chosen}; it has {', '.join(sorted(versions, key=int))}")
        entry = versions[chosen]
        with tempfile.TemporaryDirectory() as scratch:
            try:
                local = mlflow.artifacts.download_artifacts(
                    artifact_uri=entry.source, dst_path=scratch, tracking_uri=self._uri
                )
            except (MlflowException, OSError) as error:
                problem = f"of version {chosen} of {name} cannot be downloaded: {error}; train it again"
                raise BundleMissing(str(entry.source), problem) from error
            bundle = load_bundle(Path(local))
        self._client.set_registered_model_alias(name, CHAMPION, chosen)
        return Registered(name=name, version=chosen, run_id=str(entry.run_id), bundle_version=bundle.version)

    def _make_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _note(fitted: Fitted, version: str) -> str:
    """Return what a person wants to know of a run at a glance, as Markdown."""
    metrics = fitted.metrics
    rows = [
        ("decisions learned from", f"{metrics['decisions']:.0f}"),
        ("trees", f"{metrics['trees']:.0f}"),
        (
            "log loss on later decisions",
            f"{metrics['later.logloss']:.4f} (of the plain rate {metrics['later.logloss_of_rate']:.4f})",
        ),
        ("AUC on later decisions", f"{metrics['later.auc']:.3f}"),
        ("calibration error", f"{metrics['later.calibration_error']:.4f}"),
    ]
    effects = [(n.removeprefix("later.uplift."), v) for n, v in metrics.items() if n.startswith("later.uplift.")]
    rows += [
        (f"order rate of {channel} less that of no send, as logged", f"{100 * value:+.2f} points")
        for channel, value in effects
    ]
    lines = [f"Bundle `{version}`, response model of an order.", "", "| | |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def _dataset_input(fitted: Fitted, data: Dataset) -> DatasetInput:
    source = fitted.description.trained_on["log"]
    entry = mlflow.entities.Dataset(
        name="decision log", digest=data.digest[:36], source_type="decision_log", source=json.dumps({"log": source})
    )
    return DatasetInput(entry, [InputTag("mlflow.data.context", "training")])
