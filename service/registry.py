"""Looking up an alias in an MLflow registry, and fetching the bundle behind it, without importing mlflow.

`import mlflow` costs seconds and 160 MB, and loading a model through it runs code from the artifact; the service needs two reads.
Over http(s) they are MLflow's REST calls; of a `sqlite:///` registry the rows are read from its file. The registry's own tests train
and promote through mlflow itself, so that a change of either is noticed.
"""

import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, unquote, urlencode, urlparse
from urllib.request import Request, urlopen

from models.bundle import MANIFEST, listed_files, load_bundle
from models.errors import BundleError, BundleMissing

_ALIAS = re.compile(r"models:/(?P<name>[^@/]+)@(?P<alias>[^@/]+)")
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """The version that an alias points to, and where its files are."""

    name: str
    version: str
    location: str


def is_alias(source: str) -> bool:
    """Tell whether a bundle's source is an alias of a registry."""
    return source.startswith("models:/")


class Registry:
    """One MLflow registry, by its URI."""

    def __init__(self, uri: str, cache: Path, token: str | None = None) -> None:
        self._uri = uri
        self._cache = cache
        self._token = token

    def find(self, source: str) -> RegisteredVersion:
        """Return the version that models:/NAME@ALIAS points to.

        Raises
        ------
        BundleMissing: there is no such model or alias, or the registry does not answer.
        """
        match = _ALIAS.fullmatch(source)
        if match is None:
            raise BundleMissing(source, "is not models:/NAME@ALIAS")
        name, alias = match["name"], match["alias"]
        try:
            if self._uri.startswith("sqlite:///"):
                return self._find_in_file(source, name, alias)
            if self._uri.startswith(("http://", "https://")):
                query = urlencode({"name": name, "alias": alias})
                answer = json.loads(self._get(f"/api/2.0/mlflow/registered-models/alias?{query}"))["model_version"]
                return RegisteredVersion(name=name, version=str(answer["version"]), location=str(answer["source"]))
        except (URLError, HTTPException, sqlite3.Error, OSError, LookupError, TypeError, ValueError) as error:
            raise BundleMissing(source, f"the registry {self._uri} does not answer it: {error}") from error
        raise BundleMissing(source, f"the registry {self._uri} is neither sqlite:/// nor http(s)://; mend mlflow_uri")

    def fetch(self, version: RegisteredVersion) -> Path:
        """Return a local directory with the files of a version; what comes over http(s) is verified before it is kept.

        Raises
        ------
        BundleError: they cannot be had.
        """
        place = urlparse(version.location)
        if not place.scheme:
            return Path(version.location)
        if place.scheme == "file":
            return Path(unquote(place.path))
        if place.scheme != "mlflow-artifacts":
            raise BundleError(version.location, "is neither a local path nor mlflow-artifacts:/; register it there")
        place_digest = hashlib.sha256(f"{self._uri}\x1f{version.location}".encode()).hexdigest()[:12]
        target = self._cache / f"{version.name}-{version.version}-{place_digest}"
        if target.is_dir():
            return target
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self._cache))
        try:
            folder = f"/api/2.0/mlflow-artifacts/artifacts/{quote(place.path.strip('/'))}"
            manifest = self._get(f"{folder}/{MANIFEST}")
            (partial / MANIFEST).write_bytes(manifest)
            for file in listed_files(manifest):
                (partial / file).write_bytes(self._get(f"{folder}/{file}"))
            load_bundle(partial)
            partial.rename(target)
        except BundleError as error:
            raise type(error)(version.location, error.problem) from error
        except (URLError, HTTPException, OSError) as error:
            raise BundleError(version.location, f"cannot be fetched: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _find_in_file(self, source: str, name: str, alias: str) -> RegisteredVersion:
        path = Path(self._uri.removeprefix("sqlite:///"))
        if not path.is_file():
            raise BundleMissing(source, f"there is no registry file {path}; train and promote, or mend mlflow_uri")
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=_TIMEOUT_SECONDS)
        try:
            row: tuple[Any, ...] | None = connection.execute(
                "SELECT v.version, COALESCE(v.storage_location, v.source) FROM registered_model_aliases a"
                " JOIN model_versions v ON v.name = a.name AND v.version = a.version WHERE a.name = ? AND a.alias = ?",
                (name, alias),
            ).fetchone()
        finally:
            connection.close()
        if row is None:
            raise BundleMissing(source, f"the registry {self._uri} has no such alias; promote a version to it")
        return RegisteredVersion(name=name, version=str(row[0]), location=str(row[1]))

    def _get(self, path: str) -> bytes:
        request = Request(self._uri.rstrip("/") + path)  # noqa: S310  # the scheme was checked to be http(s)
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # as above
            content: bytes = answer.read()
        return content
