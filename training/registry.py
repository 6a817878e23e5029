"""MLflow: runs, the model registry and its aliases. The only place that imports mlflow."""

import getpass
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from math import isfinite
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # its telemetry is turned off first
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from models.bundle import Bundle, load_bundle
from models.errors import BundleMissing, LogUnusable
from training.card import code_version, model_card
from training.dataset import Dataset
from training.fit import Fitted, save, told_uplifts
from training.grow import Hyperparameters
from training.plots import plot_fit

CHAMPION = "champion"
CHALLENGER = "challenger"
_HISTORY = "champion.history"
_REMEMBERED = 50
_LONGEST = 5000
"""Characters that MLflow keeps of a tag."""
_STALE = 900.0
"""Seconds after which a lock was left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version in the registry, with the run it came from and the bundle in it."""

    name: str
    version: str
    run_id: str
    bundle_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run without a bundle holds."""

    command: str
    note: str
    """For people, as Markdown."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts by the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """Who holds the lock on the alias, and for how many seconds."""

    who: str
    age: float


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

    def keep(
        self,
        fitted: Fitted,
        data: Dataset,
        hyper: Hyperparameters,
        window: timedelta,
        name: str,
        log: str | None = None,
    ) -> Registered:
        """Log a fit as a run with its bundle, and register that as a new version of `name`; `log` is where the data are from, by default what the bundle says.

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
                **({} if log is None else {"log": log}),
                "window_hours": window.total_seconds() / 3600,
            }
            tags = {
                "data.digest": data.digest,
                "bundle.version": version,
                "mlflow.note.content": _note(fitted, version),
                "mlflow.source.name": "python -m training train",
                "mlflow.source.type": "LOCAL",
                "code.version": code_version(),
            }
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, 0, 0) for key, value in fitted.metrics.items() if value == value],
                params=[Param(key, str(value)) for key, value in parameters.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            self._client.log_inputs(run_id, datasets=[_dataset_input(str(parameters["log"]), data)])
            for path in plot_fit(fitted, folder / "plots"):
                self._client.log_artifact(run_id, str(path), "plots")
            self._client.log_artifacts(run_id, str(folder / "bundle"), "bundle")
            self._client.log_text(run_id, model_card(fitted, version, data, window), "model_card.md")
            location = self._client.get_run(run_id).info.artifact_uri + "/bundle"
            self._make_model(name)
            registered = self._client.create_model_version(name, source=location, run_id=run_id)
            self._client.set_model_version_tag(name, registered.version, "bundle.version", version)
        return Registered(name=name, version=str(registered.version), run_id=run_id, bundle_version=version)

    def keep_report(self, title: str, report: Report) -> str:
        """Log figures as a run without a bundle, such as an evaluation or a gate; return the run's id.

        Raises
        ------
        LogUnusable: MLflow refuses it or does not answer.
        """
        with self._run(title) as run_id:
            tags = {"mlflow.note.content": report.note, "mlflow.source.name": report.command, **report.tags}
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, 0, 0) for key, value in report.metrics.items() if isfinite(value)],
                params=[Param(key, str(value)[:_LONGEST]) for key, value in report.parameters.items()],
                tags=[RunTag(key, value[:_LONGEST]) for key, value in tags.items()],
            )
            for file, text in report.files.items():
                self._client.log_text(run_id, text, file)
        return run_id

    def find(self, name: str, version: str | None) -> Registered:
        """Return a version, the newest where none is named.

        Raises
        ------
        LogUnusable: there is no such registry or version.
        """
        with self._asked():
            found = self._client.search_model_versions(f"name = '{name}'")
        if not found:
            raise LogUnusable(f"the registry {self._uri} has no version of {name}; train one first")
        versions = {str(entry.version): entry for entry in found}
        chosen = max(versions, key=int) if version is None else version
        if chosen not in versions:
            raise LogUnusable(f"{name} has no version {chosen}; it has {', '.join(sorted(versions, key=int))}")
        entry = versions[chosen]
        return Registered(
            name=name,
            version=chosen,
            run_id=str(entry.run_id),
            bundle_version=str(entry.tags.get("bundle.version", "")),
        )

    def ask(self) -> None:
        """Ask for the experiment, to see that the store answers.

        Raises
        ------
        LogUnusable: it does not.
        """
        with self._asked():
            self._client.get_experiment_by_name(self._experiment)

    def champion(self, name: str) -> Registered | None:
        """Return the version that the alias champion points to, None where there is none."""
        return self.aliased(name, CHAMPION)

    def aliased(self, name: str, alias: str) -> Registered | None:
        """Return the version that an alias points to, None where there is none."""
        with self._asked():
            aliases = dict(self._client.get_registered_model(name).aliases)
        return None if alias not in aliases else self.find(name, str(aliases[alias]))

    def fetch(self, registered: Registered) -> Bundle:
        """Download the bundle of a version and verify it.

        Raises
        ------
        BundleError: it cannot be had or does not verify.
        """
        with self._asked():
            source = str(self._client.get_model_version(registered.name, registered.version).source)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                local = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=scratch, tracking_uri=self._uri
                )
            except (MlflowException, OSError) as error:
                problem = f"of version {registered.version} of {registered.name} cannot be downloaded: {error}; train it again"
                raise BundleMissing(source, problem) from error
            return load_bundle(Path(local))

    def promote(self, name: str, version: str | None) -> Registered:
        """Point the alias champion at a version, the newest where none is named, after its bundle verified; no gate is asked.

        Raises
        ------
        LogUnusable: there is no such registry or version. BundleError: its bundle cannot be had or does not verify.
        """
        chosen = self.find(name, version)
        with self.promoting(name):
            return self.move(chosen)

    def challenge(self, name: str, version: str | None) -> Registered:
        """Point the alias challenger at a version, the newest where none is named, after its bundle verified; nothing else changes.

        Raises
        ------
        LogUnusable: there is no such registry or version. BundleError: its bundle cannot be had or does not verify.
        """
        chosen = self.find(name, version)
        bundle = self.fetch(chosen)
        with self._asked():
            self._client.set_registered_model_alias(name, CHALLENGER, chosen.version)
        return replace(chosen, bundle_version=bundle.version)

    def move(self, chosen: Registered, tags: Mapping[str, str] | None = None) -> Registered:
        """Point the alias champion at a version whose bundle verifies, and keep which one it was before; to be called while `promoting`.

        Raises
        ------
        BundleError: its bundle cannot be had or does not verify.
        """
        bundle = self.fetch(chosen)
        current = self.champion(chosen.name)
        with self._asked():
            if current is not None and current.version != chosen.version:
                self._keep_history(chosen.name, [*self._history(chosen.name), current.version])
            for key, value in (tags or {}).items():
                self._client.set_model_version_tag(chosen.name, chosen.version, key, value[:_LONGEST])
            self._client.set_registered_model_alias(chosen.name, CHAMPION, chosen.version)
        return replace(chosen, bundle_version=bundle.version)

    def rollback(self, name: str) -> tuple[Registered, Registered]:
        """Point the alias champion at the version that it pointed to before; return the version left and the one returned to.

        Raises
        ------
        LogUnusable: there is no champion, or none was before it. BundleError: that one's bundle cannot be had or does not verify.
        """
        self.find(name, None)
        with self.promoting(name):
            current, history = self.champion(name), self._history(name)
            if current is None:
                raise LogUnusable(f"{name} has no champion; promote a version first")
            if not history:
                raise LogUnusable(
                    f"version {current.version} of {name} is the first champion; there is none to return to: promote another version"
                )
            previous = self.find(name, history[-1])
            bundle = self.fetch(previous)
            with self._asked():
                self._client.set_registered_model_alias(name, CHAMPION, previous.version)
                self._keep_history(name, history[:-1])
        return current, replace(previous, bundle_version=bundle.version)

    @contextmanager
    def promoting(self, name: str) -> Iterator[None]:
        """Keep others from moving the alias meanwhile.

        The lock is a registered model of its own name, since to make one is the only thing that MLflow does for one caller alone. One that is older than
        15 minutes was left behind by somebody who was killed, and is taken over.

        Raises
        ------
        LogUnusable: somebody else is promoting.
        """
        lock = f"{name}.promoting"
        who = f"{_user()} on {socket.gethostname()}"
        for is_last in (False, True):
            try:
                self._client.create_registered_model(lock, description=who)
                break
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise LogUnusable(f"the registry {self._uri} does not answer: {error.message}") from error
                holder = self._holder(lock)
                if holder is not None and (is_last or holder.age < _STALE):
                    raise LogUnusable(
                        f"{holder.who} has been promoting a version of {name} for {holder.age:.0f} s; wait and look at the champion before you try again, "
                        f"or delete the registered model {lock} if nobody is"
                    ) from error
                with suppress(MlflowException):  # another may have deleted it first
                    self._client.delete_registered_model(lock)
        try:
            yield
        finally:
            with suppress(MlflowException):  # the block's own error is the one to be told
                self._client.delete_registered_model(lock)

    def _holder(self, lock: str) -> "_Holder | None":
        try:
            found = self._client.get_registered_model(lock)
        except MlflowException:
            return None
        age = time.time() - float(found.creation_timestamp or 0) / 1000
        return _Holder(who=str(found.description or "somebody"), age=age)

    def _history(self, name: str) -> list[str]:
        """Return the versions that were champion before, the newest last."""
        with self._asked():
            tags = self._client.get_registered_model(name).tags
        return [version for version in str(tags.get(_HISTORY, "")).split(",") if version]

    def _keep_history(self, name: str, versions: Sequence[str]) -> None:
        self._client.set_registered_model_tag(name, _HISTORY, ",".join(versions[-_REMEMBERED:]))

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Tell what MLflow refuses as LogUnusable."""
        try:
            yield
        except MlflowException as error:
            raise LogUnusable(
                f"the registry {self._uri} does not answer: {error.message}; try again, or mend --mlflow"
            ) from error

    def _make_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def reach(uri: str, experiment: str) -> None:
    """Ask a tracking server, so that nobody works for an hour before it is known to be away. A store in a file is not asked, nor made.

    Raises
    ------
    LogUnusable: it does not answer.
    """
    if uri.startswith(("http://", "https://")):
        MlflowRegistry(uri, experiment).ask()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"user {os.getuid()}"


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
    rows += [
        (f"order rate of {channel} less that of no send, as logged", text)
        for channel, text in told_uplifts(metrics).items()
    ]
    lines = [f"Bundle `{version}`, response model of an order.", "", "| | |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def _dataset_input(source: str, data: Dataset) -> DatasetInput:
    entry = mlflow.entities.Dataset(
        name="decision log", digest=data.digest[:36], source_type="decision_log", source=json.dumps({"log": source})
    )
    return DatasetInput(entry, [InputTag("mlflow.data.context", "training")])
