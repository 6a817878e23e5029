"""From a fit to what serves: runs and versions in MLflow, the alias, and the service's own way to the bundle behind it."""

import dataclasses
import http.server
import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import structlog.testing
from mlflow.tracking import MlflowClient

from models.booster import BoosterError
from models.bundle import MANIFEST, RESPONSE, load_bundle
from models.errors import BundleCorrupt, BundleError, BundleMissing, BundleSlow, LogUnusable
from service.bundles import BundleHolder
from service.registry import RegisteredVersion, Registry
from tests.service.served import MovedClock
from tests.training.examples import NOW, WINDOW, world, write_fitted
from training.__main__ import main
from training.dataset import Dataset
from training.fit import Fitted, fit
from training.grow import Hyperparameters
from training.registry import CHAMPION, MlflowRegistry, Registered

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")

NAME = "shop"
SOURCE = f"models:/{NAME}@{CHAMPION}"
HYPER = Hyperparameters(trees=10)
FILES = {"manifest.json", "bundle.json", "response.txt", "golden.json"}


@pytest.fixture(scope="session")
def data() -> Dataset:
    return world(1500)


@pytest.fixture(scope="session")
def fitted(data: Dataset) -> Fitted:
    return fit(data, HYPER, "the world", lambda _: None)


@pytest.fixture(scope="session")
def newer(data: Dataset) -> Fitted:
    """Another fit of the same data."""
    return fit(data, dataclasses.replace(HYPER, seed=1), "the world", lambda _: None)


class Bench:
    """A data scientist's end of a registry."""

    def __init__(self, uri: str, artifacts: Path | None, data: Dataset) -> None:
        self.uri = uri
        self.registry = MlflowRegistry(uri, "autumn", artifacts)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._data = data

    def keep(self, fitted: Fitted, name: str = NAME) -> Registered:
        return self.registry.keep(fitted, self._data, HYPER, WINDOW, name)

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias(NAME, CHAMPION).version)

    def bundle_folder(self, registered: Registered) -> Path:
        """Where MLflow keeps a version's files."""
        source = self.client.get_model_version(registered.name, registered.version).source
        return Path(unquote(urlparse(str(source)).path))


@pytest.fixture
def bench(mlflow_uri: str, tmp_path: Path, data: Dataset) -> Bench:
    """A bench without anything on it."""
    return Bench(mlflow_uri, tmp_path / "mlruns", data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder with a registry of two versions, none of them promoted."""

    folder: Path
    first: Registered
    second: Registered


@pytest.fixture(scope="session")
def kept(
    mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory, data: Dataset, fitted: Fitted, newer: Fitted
) -> Kept:
    """What every shop below is a copy of."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    bench = Bench(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlruns", data)
    return Kept(folder=folder, first=bench.keep(fitted), second=bench.keep(newer))


@pytest.fixture
def shop(kept: Kept, tmp_path: Path, data: Dataset) -> Bench:
    """A bench with two versions of a model, in a folder of its own."""
    folder = tmp_path / "shop"
    shutil.copytree(kept.folder, folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        for table, column in (
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
            ("runs", "artifact_uri"),
        ):
            move = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            connection.execute(move, (kept.folder.as_uri(), folder.as_uri()))
    return Bench(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlruns", data)


def tamper(folder: Path) -> Callable[[], None]:
    """Change the model of a bundle; return how to undo it."""
    path = folder / RESPONSE
    before = path.read_bytes()
    path.write_bytes(before.replace(b"num_leaves=", b"num_leaves= ", 1))

    def mend() -> None:
        path.write_bytes(before)

    return mend


def test_run_has_parameters_metrics_and_tags(bench: Bench, fitted: Fitted, data: Dataset) -> None:
    """A run holds every hyperparameter, where the data came from with their digest, every metric, and ends as finished."""
    registered = bench.keep(fitted)

    run = bench.client.get_run(registered.run_id)

    expected = {name: str(value) for name, value in dataclasses.asdict(HYPER).items()}
    assert run.data.params == fitted.description.trained_on | expected | {"window_hours": "72.0"}
    assert run.data.metrics == pytest.approx(fitted.metrics)
    assert run.data.tags["data.digest"] == data.digest
    assert run.data.tags["bundle.version"] == registered.bundle_version
    assert run.info.status == "FINISHED"


def test_run_has_plots_and_the_bundle(bench: Bench, fitted: Fitted) -> None:
    """A run's artifacts are plots that are pictures, a model card, and a bundle that loads as the version that was told."""
    registered = bench.keep(fitted)

    plots = {
        Path(entry.path).name: entry.file_size for entry in bench.client.list_artifacts(registered.run_id, "plots")
    }

    assert set(plots) == {
        "calibration.png",
        "learning_curve.png",
        "importance.png",
        "shap.png",
        "response_by_hour.png",
        "gain.png",
        "uplift_by_channel.png",
    }
    assert "model_card.md" in [entry.path for entry in bench.client.list_artifacts(registered.run_id)]
    assert min(size or 0 for size in plots.values()) > 5_000
    folder = bench.bundle_folder(registered)
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_bundle(folder).version == registered.bundle_version


def test_run_names_its_data(bench: Bench, fitted: Fitted, data: Dataset) -> None:
    """The data set of a run is shown in MLflow, with its digest and the log it came from."""
    registered = bench.keep(fitted)

    inputs = bench.client.get_run(registered.run_id).inputs
    assert inputs is not None
    (entry,) = inputs.dataset_inputs

    assert entry.dataset.digest == data.digest[:36]
    assert json.loads(entry.dataset.source) == {"log": "the world"}


def test_note_tells_a_run_at_a_glance(bench: Bench, fitted: Fitted) -> None:
    """The note on a run's page has its bundle and how good it was."""
    registered = bench.keep(fitted)

    note = bench.client.get_run(registered.run_id).data.tags["mlflow.note.content"]

    assert registered.bundle_version in note
    assert f"{fitted.metrics['later.auc']:.3f}" in note
    assert "order rate of push less that of no send" in note


def test_each_fit_is_a_new_version(bench: Bench, fitted: Fitted, newer: Fitted) -> None:
    """Versions count up; the same fit gives the same bundle under another version, another fit another bundle."""
    kept = [bench.keep(fitted), bench.keep(fitted), bench.keep(newer)]

    assert [registered.version for registered in kept] == ["1", "2", "3"]
    assert kept[0].bundle_version == kept[1].bundle_version != kept[2].bundle_version
    tags = [bench.client.get_model_version(NAME, r.version).tags["bundle.version"] for r in kept]
    assert tags == [r.bundle_version for r in kept]


def test_metrics_that_are_unknown_are_left_out(bench: Bench, fitted: Fitted) -> None:
    """A metric that could not be measured is missing in MLflow, which cannot hold it."""
    unknown = dataclasses.replace(fitted, metrics=fitted.metrics | {"later.auc": float("nan")})

    registered = bench.keep(unknown)

    assert "later.auc" not in bench.client.get_run(registered.run_id).data.metrics


def test_fit_that_cannot_be_written_fails_its_run(bench: Bench, fitted: Fitted) -> None:
    """Where the bundle cannot be made, the run ends as failed and nothing is registered."""
    broken = dataclasses.replace(fitted, model_text="no model")

    with pytest.raises(BoosterError):
        bench.keep(broken)

    experiment = bench.client.get_experiment_by_name("autumn")
    assert experiment is not None
    (run,) = bench.client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert bench.client.search_model_versions(f"name = '{NAME}'") == []


def test_promote_takes_the_newest(shop: Bench) -> None:
    """Without a version named, the newest becomes the champion, also beyond the ninth."""
    source = str(shop.client.get_model_version(NAME, "2").source)
    for _ in range(8):
        shop.client.create_model_version(NAME, source=source)

    promoted = shop.registry.promote(NAME, None)

    assert promoted.version == shop.champion() == "10"


def test_promote_takes_the_version_named(shop: Bench, kept: Kept) -> None:
    """A version named becomes the champion, an older one too; the answer is what was registered."""
    shop.registry.promote(NAME, None)

    promoted = shop.registry.promote(NAME, "1")

    assert promoted == kept.first
    assert shop.champion() == "1"


def test_promote_refuses_an_unknown_version(shop: Bench) -> None:
    """A version that does not exist is refused with those that do, and the alias stays."""
    shop.registry.promote(NAME, "1")

    for version in ("7", "0", "-1", "1.0", "first", ""):
        with pytest.raises(LogUnusable, match=f"{NAME} has no version {version}; it has 1, 2"):
            shop.registry.promote(NAME, version)

    assert shop.champion() == "1"


def test_promote_refuses_an_unknown_model(bench: Bench) -> None:
    """A model that nobody trained is refused with what to do; so is a name that MLflow cannot search for."""
    for name in ("absent", 'say "hello"'):
        with pytest.raises(LogUnusable, match=r"has no version of .*; train one first"):
            bench.registry.promote(name, None)
    with pytest.raises(LogUnusable, match="does not answer"):
        bench.registry.promote("o'brien", None)


def test_promote_refuses_a_tampered_bundle(shop: Bench, kept: Kept) -> None:
    """A bundle whose files are not what its manifest says does not become the champion; the old one stays it."""
    shop.registry.promote(NAME, "1")
    tamper(shop.bundle_folder(kept.second))

    with pytest.raises(BundleCorrupt, match=r"sha256 of response\.txt"):
        shop.registry.promote(NAME, None)

    assert shop.champion() == "1"


def test_promote_refuses_a_bundle_whose_files_are_gone(shop: Bench, kept: Kept) -> None:
    """A version whose artifacts were deleted is refused by its number, with what to do."""
    shutil.rmtree(shop.bundle_folder(kept.second))

    with pytest.raises(BundleMissing, match=r"(?s)of version 2 of shop cannot be downloaded.*; train it again"):
        shop.registry.promote(NAME, "2")


@pytest.mark.parametrize("uri", ["nonsense://somewhere", "file:///nowhere"])
def test_store_of_an_unknown_kind_is_refused(uri: str) -> None:
    """A URI that MLflow cannot open is refused with what to mend."""
    with pytest.raises(LogUnusable, match=f"the registry {uri} .*"):
        MlflowRegistry(uri, "autumn").promote(NAME, None)


def test_a_challenger_is_named_without_a_gate(
    shop: Bench, kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`challenge` points the alias challenger at a version whose bundle verifies, the newest by default, and leaves the champion alone."""
    shop.registry.promote(NAME, "1")

    assert main(["challenge", "--name", NAME, "--mlflow", shop.uri]) == 0

    assert f"--shadow-bundle models:/{NAME}@challenger" in capsys.readouterr().out
    found = Registry(shop.uri, tmp_path / "cache").find(f"models:/{NAME}@challenger")
    assert (found.version, shop.champion()) == ("2", "1")
    tamper(shop.bundle_folder(kept.first))
    with pytest.raises(BundleCorrupt):
        shop.registry.challenge(NAME, "1")
    with pytest.raises(LogUnusable, match=f"{NAME} has no version 7"):
        shop.registry.challenge(NAME, "7")


def fetched(registry: Registry) -> Path:
    return registry.fetch(registry.find(SOURCE))


def test_service_finds_what_was_promoted(shop: Bench, kept: Kept, tmp_path: Path) -> None:
    """Out of the registry's file, without mlflow, the service has the champion's version and the very bundle of it."""
    shop.registry.promote(NAME, "2")
    registry = Registry(shop.uri, tmp_path / "cache")

    found = registry.find(SOURCE)

    assert (found.name, found.version) == (NAME, "2")
    assert load_bundle(registry.fetch(found)).version == kept.second.bundle_version
    assert not (tmp_path / "cache").exists()


def test_service_follows_the_alias(shop: Bench, tmp_path: Path) -> None:
    """What the service finds is what the alias points to at that moment, forth and back."""
    registry = Registry(shop.uri, tmp_path / "cache")

    found = []
    for version in ("1", "2", "1"):
        shop.registry.promote(NAME, version)
        found.append(registry.find(SOURCE).version)

    assert found == ["1", "2", "1"]


def test_folders_with_odd_names_are_found(mlflow_template: Path, tmp_path: Path, data: Dataset, fitted: Fitted) -> None:
    """Registry and artifacts may lie in a folder with spaces, percent signs and letters of any language."""
    folder = tmp_path / "осень 100% sale"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    odd = Bench(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlruns", data)

    registered = odd.keep(fitted)
    odd.registry.promote(NAME, None)

    assert load_bundle(fetched(Registry(odd.uri, tmp_path / "cache"))).version == registered.bundle_version


def test_plain_paths_in_a_registry_are_taken_as_they_are(shop: Bench, fitted: Fitted, tmp_path: Path) -> None:
    """MLflow keeps its default artifact folder as a plain path, in which nothing is escaped."""
    shop.registry.promote(NAME, None)
    folder = tmp_path / "50%25 #1 off?"
    version = write_fitted(folder, NAME, fitted)
    with closing(sqlite3.connect(shop.uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE model_versions SET source = ?, storage_location = ?", (str(folder), str(folder)))

    assert load_bundle(fetched(Registry(shop.uri, tmp_path / "cache"))).version == version


def test_missing_alias_is_said(shop: Bench, tmp_path: Path) -> None:
    """A model without a champion, and an alias nobody set, are told with what to do."""
    for source in (SOURCE, f"models:/{NAME}@challenger", f"models:/absent@{CHAMPION}"):
        with pytest.raises(BundleMissing, match="has no such alias; promote a version to it"):
            Registry(shop.uri, tmp_path).find(source)


@pytest.mark.parametrize(
    "source", ["models:/shop", "models:/shop/1", "models:/@champion", "models:/shop@", "models:/a@b@c"]
)
def test_sources_that_are_no_alias_are_refused(source: str, tmp_path: Path) -> None:
    """Only models:/NAME@ALIAS is looked up."""
    with pytest.raises(BundleMissing, match="is not models:/NAME@ALIAS"):
        Registry("sqlite:///unused", tmp_path).find(source)


def test_registries_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """A registry file that is missing, is no database or is not MLflow's, and a URI of another kind, are each told."""
    (tmp_path / "text.db").write_text("not a database " * 100)
    sqlite3.connect(tmp_path / "other.db").close()
    cases = {
        f"sqlite:///{tmp_path / 'absent.db'}": "there is no registry file .*absent.db",
        f"sqlite:///{tmp_path / 'text.db'}": "does not answer it: file is not a database",
        f"sqlite:///{tmp_path / 'other.db'}": "does not answer it: no such table",
        "postgresql://localhost/mlflow": "is neither sqlite:/// nor http",
    }

    for uri, message in cases.items():
        with pytest.raises(BundleMissing, match=message):
            Registry(uri, tmp_path).find(SOURCE)


@pytest.fixture
def remote(mlflow_server: str, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose registry is a real MLflow server."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Bench(mlflow_server, None, data)


def test_bundles_come_over_http(remote: Bench, fitted: Fitted, newer: Fitted, tmp_path: Path) -> None:
    """From a real MLflow server the service has the champion's bundle, byte for byte, and another once the alias moved."""
    for fit_made in (fitted, newer):
        registered = remote.keep(fit_made)
        remote.registry.promote(NAME, registered.version)
        registry = Registry(remote.uri, tmp_path / "cache")

        found = registry.find(SOURCE)
        folder = registry.fetch(found)

        assert found.version == registered.version
        assert found.location.startswith("mlflow-artifacts:/")
        local = tmp_path / f"local-{found.version}"
        write_fitted(local, NAME, fit_made)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in local.iterdir()}
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache").iterdir())
    assert kept == [f"{NAME}-1", f"{NAME}-2"]


def test_missing_alias_over_http_is_said(remote: Bench, tmp_path: Path) -> None:
    """A server that knows no such model is told apart from one that is away."""
    with pytest.raises(BundleMissing, match=r"does not answer it: HTTP Error 404"):
        Registry(remote.uri, tmp_path).find("models:/absent@champion")


def test_tampered_bundle_is_not_promoted_over_http(remote: Bench, fitted: Fitted) -> None:
    """A bundle is verified after its download from the server, before the alias moves."""
    name = "tampered"
    registered = remote.keep(fitted, name)
    remote.client.log_text(registered.run_id, "another model", f"bundle/{RESPONSE}")

    with pytest.raises(BundleCorrupt, match=r"sha256 of response\.txt"):
        remote.registry.promote(name, None)


class Canned(http.server.BaseHTTPRequestHandler):
    """A registry that answers what it was told to answer."""

    server: "CannedServer"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        status, body, length = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class CannedServer(http.server.ThreadingHTTPServer):
    """Serves one version, whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Canned)
        self.folder = folder
        self.seen: list[tuple[str, str | None]] = []
        self.alias_answer: bytes = json.dumps(
            {"model_version": {"name": NAME, "version": "1", "source": "mlflow-artifacts:/1/run/artifacts/bundle"}}
        ).encode()
        self.status = 200
        self.missing_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str) -> tuple[int, bytes, int]:
        if path.startswith("/api/2.0/mlflow/registered-models/alias?"):
            return self.status, self.alias_answer, len(self.alias_answer)
        body = (self.folder / path.rpartition("/")[2]).read_bytes()
        return self.status, body, len(body) + self.missing_bytes


@pytest.fixture
def canned(tmp_path: Path, fitted: Fitted) -> Iterator[CannedServer]:
    folder = tmp_path / "served"
    write_fitted(folder, NAME, fitted)
    with CannedServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_token_goes_with_every_call(canned: CannedServer, tmp_path: Path) -> None:
    """A token is sent as a bearer token with the lookup and with each of the four files; without one nothing is sent."""
    fetched(Registry(canned.url, tmp_path / "one", token="secret"))
    with_token = [header for _, header in canned.seen]
    canned.seen.clear()
    fetched(Registry(canned.url, tmp_path / "two"))

    assert with_token == ["Bearer secret"] * 5
    assert [header for _, header in canned.seen] == [None] * 5


def test_fetched_bundle_is_kept(canned: CannedServer, tmp_path: Path) -> None:
    """A version that was fetched is not fetched again, not by another process with that cache either."""
    fetched(Registry(canned.url, tmp_path / "cache"))
    canned.seen.clear()

    fetched(Registry(canned.url, tmp_path / "cache"))

    assert [path for path, _ in canned.seen] == ["/api/2.0/mlflow/registered-models/alias?name=shop&alias=champion"]


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"null", b'"text"', b"{}", b'{"model_version": []}', b"<html>", b"\xff\xfe"]
)
def test_strange_answers_are_said(canned: CannedServer, tmp_path: Path, answer: bytes) -> None:
    """Whatever answers in the place of a registry, the service says that it found no bundle."""
    canned.alias_answer = answer

    with pytest.raises(BundleMissing, match="does not answer it"):
        Registry(canned.url, tmp_path).find(SOURCE)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_error_statuses_are_said(canned: CannedServer, tmp_path: Path, status: int) -> None:
    """A status that is no success is told with its number, both of the lookup and of a file."""
    version = Registry(canned.url, tmp_path).find(SOURCE)
    canned.status = status

    with pytest.raises(BundleMissing, match=str(status)):
        Registry(canned.url, tmp_path).find(SOURCE)
    with pytest.raises(BundleError, match=f"cannot be fetched.*{status}"):
        Registry(canned.url, tmp_path / "cache").fetch(version)


def test_cut_download_leaves_nothing_behind(canned: CannedServer, tmp_path: Path) -> None:
    """A download that breaks off is told, and nothing of it is taken for the bundle later."""
    registry = Registry(canned.url, tmp_path / "cache")
    canned.missing_bytes = 10
    with pytest.raises(BundleError, match="cannot be fetched"):
        fetched(registry)

    assert list((tmp_path / "cache").iterdir()) == []
    canned.missing_bytes = 0
    assert {path.name for path in fetched(registry).iterdir()} == FILES


def test_other_stores_are_refused(tmp_path: Path) -> None:
    """Artifacts in a store that the service does not speak to are refused with where to put them."""
    version = RegisteredVersion(name=NAME, version="1", location="s3://bucket/bundle")

    with pytest.raises(BundleError, match=r"is neither a local path nor mlflow-artifacts:/"):
        Registry("http://127.0.0.1:1", tmp_path).fetch(version)


@contextmanager
def answering(text: bytes) -> Iterator[str]:
    """The URL of something that takes one connection, says one thing and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_what_does_not_speak_http_is_said(text: bytes, tmp_path: Path) -> None:
    """A port behind which something else listens is told as a registry that does not answer."""
    with answering(text) as url, pytest.raises(BundleMissing, match="does not answer it"):
        Registry(url, tmp_path).find(SOURCE)


def test_registry_that_is_away_is_said(tmp_path: Path) -> None:
    """A port at which nobody listens is told with the registry's address."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    with pytest.raises(BundleMissing, match=f"the registry {url} does not answer it"):
        Registry(url, tmp_path).find(SOURCE)


def holder_of(bench: Bench, folder: Path) -> BundleHolder:
    return BundleHolder(SOURCE, Registry(bench.uri, folder / "cache"), MovedClock())


def serving(holder: BundleHolder) -> str:
    assert holder.current is not None
    return holder.current.version


def test_holder_swaps_when_the_alias_moves(shop: Bench, kept: Kept, tmp_path: Path) -> None:
    """A holder loads the champion, loads nothing while it stays, and swaps when another is promoted, or the first again."""
    shop.registry.promote(NAME, "1")
    holder = holder_of(shop, tmp_path)

    assert (holder.load(), serving(holder)) == (True, kept.first.bundle_version)
    assert holder.load_time == NOW
    before = holder.current
    assert not holder.load()
    assert holder.current is before
    shop.registry.promote(NAME, "2")
    assert (holder.load(), serving(holder)) == (True, kept.second.bundle_version)
    shop.registry.promote(NAME, "1")
    assert (holder.load(), serving(holder), holder.error) == (True, kept.first.bundle_version, "")


def test_holder_keeps_the_old_bundle_when_the_new_is_corrupt(shop: Bench, kept: Kept, tmp_path: Path) -> None:
    """A corrupt champion is said in `error` and the old one goes on serving, until the new one is mended."""
    shop.registry.promote(NAME, "1")
    holder = holder_of(shop, tmp_path)
    holder.load()
    shop.registry.promote(NAME, "2")
    mend = tamper(shop.bundle_folder(kept.second))

    for _ in range(2):
        with pytest.raises(BundleCorrupt):
            holder.load()
        assert serving(holder) == kept.first.bundle_version
        assert "sha256 of response.txt is not the manifest's" in holder.error
    mend()

    assert (holder.load(), serving(holder), holder.error) == (True, kept.second.bundle_version, "")


def test_holder_recovers_from_a_corrupt_download(canned: CannedServer, tmp_path: Path) -> None:
    """What was fetched corrupt is not kept: once the server has it mended, it is fetched again and serves."""
    holder = BundleHolder(SOURCE, Registry(canned.url, tmp_path / "cache"), MovedClock())
    mend = tamper(canned.folder)
    errors = set()
    for _ in range(2):
        with pytest.raises(BundleCorrupt, match=r"sha256 of response\.txt"):
            holder.load()
        errors.add(holder.error)
    assert holder.current is None
    assert len(errors) == 1

    mend()

    assert holder.load()
    assert holder.error == ""


def test_holder_keeps_the_old_bundle_when_the_registry_is_away(shop: Bench, kept: Kept, tmp_path: Path) -> None:
    """While the registry does not answer the old bundle serves and `error` says why; when it answers again, it is clear."""
    shop.registry.promote(NAME, None)
    holder = holder_of(shop, tmp_path)
    holder.load()
    path = Path(shop.uri.removeprefix("sqlite:///"))
    path.rename(path.with_suffix(".away"))

    with pytest.raises(BundleMissing):
        holder.load()
    assert serving(holder) == kept.second.bundle_version
    assert "there is no registry file" in holder.error

    path.with_suffix(".away").rename(path)
    assert not holder.load()
    assert holder.error == ""


def test_holder_of_a_folder(tmp_path: Path, fitted: Fitted, newer: Fitted) -> None:
    """A bundle named by its folder is loaded again when asked; a folder without one leaves the old one serving."""
    write_fitted(tmp_path / "b", NAME, fitted)
    holder = BundleHolder(str(tmp_path / "b"), Registry("sqlite:///unused", tmp_path), MovedClock())
    assert holder.load()
    before = serving(holder)

    write_fitted(tmp_path / "b", NAME, newer)
    assert holder.load()
    assert serving(holder) != before

    (tmp_path / "b" / MANIFEST).unlink()
    with pytest.raises(BundleMissing, match=r"has no manifest\.json"):
        holder.load()
    assert holder.current is not None


def test_holder_of_nothing_loads_nothing(tmp_path: Path) -> None:
    """Without a source there is no bundle, and no error."""
    holder = BundleHolder("", Registry("sqlite:///unused", tmp_path), MovedClock())

    assert not holder.load()
    assert (holder.current, holder.error) == (None, "")


class Scripted(Registry):
    """A registry whose lookups go by a script; the last of them is told of."""

    def __init__(self, script: list[RegisteredVersion | BundleError]) -> None:
        super().__init__("sqlite:///unused", Path("unused"))
        self.script = script
        self.is_over = threading.Event()

    def find(self, source: str) -> RegisteredVersion:
        if len(self.script) == 1:
            self.is_over.set()
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BundleError):
            raise step
        return step


def test_watcher_swaps_by_itself(tmp_path: Path, fitted: Fitted, newer: Fitted) -> None:
    """The watcher goes on after errors, of whatever kind of bundle error, and has the new champion serve."""
    versions = []
    for number, made in enumerate((fitted, newer), start=1):
        folder = tmp_path / str(number)
        write_fitted(folder, NAME, made)
        versions.append(RegisteredVersion(name=NAME, version=str(number), location=str(folder)))
    absent = RegisteredVersion(name=NAME, version="3", location=str(tmp_path / "absent"))
    registry = Scripted([versions[0], BundleMissing(SOURCE, "away"), absent, versions[0], versions[1]])
    holder = BundleHolder(SOURCE, registry, MovedClock())
    holder.load()
    first = serving(holder)

    holder.watch(0.001)
    assert registry.is_over.wait(timeout=30)
    holder.close()

    assert serving(holder) != first
    assert holder.error == ""


def test_holder_keeps_the_old_bundle_when_the_new_is_slow(tmp_path: Path, fitted: Fitted, newer: Fitted) -> None:
    """A bundle that takes longer than the limit to score its golden rows is refused, the one before serves on, and `told` hears of both."""
    write_fitted(tmp_path / "b", NAME, fitted)
    rounds, told = iter([0.0, 0.1] * 3 + [0.0, 0.4] * 3), list[bool]()
    registry = Registry("sqlite:///unused", tmp_path)
    holder = BundleHolder(str(tmp_path / "b"), registry, MovedClock(), 0.25, told.append, rounds.__next__)
    holder.load()
    before = serving(holder)
    write_fitted(tmp_path / "b", NAME, newer)

    with pytest.raises(BundleSlow, match="takes 400 ms to score its golden rows, 250 ms are allowed"):
        holder.load()

    assert serving(holder) == before
    assert "takes 400 ms" in holder.error
    assert told == [True, False]


def test_holder_outlives_whatever_a_bundle_does_to_its_reader(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody thought of is told as a bundle that cannot be loaded; the one before serves on."""
    write_fitted(tmp_path / "b", NAME, fitted)
    holder = BundleHolder(str(tmp_path / "b"), Registry("sqlite:///unused", tmp_path), MovedClock())
    holder.load()
    before = serving(holder)

    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("service.bundles.load_bundle", fail)
    with pytest.raises(BundleError, match="cannot be loaded: RecursionError: too deep"):
        holder.load()

    assert serving(holder) == before
    assert "too deep" in holder.error


def test_each_problem_of_a_bundle_is_logged_once(tmp_path: Path, fitted: Fitted) -> None:
    """A refusal is one line of the log, with what serves meanwhile, however often it is found again."""
    write_fitted(tmp_path / "b", NAME, fitted)
    holder = BundleHolder(str(tmp_path / "b"), Registry("sqlite:///unused", tmp_path), MovedClock())
    holder.load()
    tamper(tmp_path / "b")

    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(BundleCorrupt):
                holder.load()

    assert [(line["log_level"], line["serves"]) for line in lines] == [("warning", serving(holder))]
    assert "sha256" in lines[0]["error"]


def test_tracking_server_that_is_away_is_said(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow cannot be reached, keeping a fit says so and what to do; it is no traceback."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(LogUnusable, match=r"does not take the run: .*mend --mlflow"):
            MlflowRegistry(uri, "away").keep(fitted, world(400), Hyperparameters(), WINDOW, "shop")
