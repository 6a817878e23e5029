"""The bundle: a plain directory that serves, with no code and no pickle in it.

    manifest.json   format, name and the sha256 of each file below
    bundle.json     columns with their categories, calibration, unsubscribe rates, where it was trained
    response.txt    LightGBM model of an order, as text
    golden.json     rows with their raw scores, which must come out again on load

P(response) = 1 / (1 + exp(-(slope x raw score + intercept))), Platt's calibration. Source: Platt (1999), "Probabilistic Outputs for
Support Vector Machines".
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.actions import Estimate
from models.booster import Booster, BoosterError
from models.context import Context
from models.errors import BundleCorrupt, BundleIncompatible, BundleMissing
from models.features import Action, Column, Encoder

FloatArray = NDArray[np.float64]
FORMAT = 1
MANIFEST, DESCRIPTION, RESPONSE, GOLDEN = "manifest.json", "bundle.json", "response.txt", "golden.json"
_FILES = (DESCRIPTION, RESPONSE, GOLDEN)
_GOLDEN_TOLERANCE = 1e-9
_IGNORE = ConfigDict(extra="ignore")
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle's files must be."""

    __pydantic_config__ = _IGNORE

    format: int
    name: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """How a bundle's model is fed and read."""

    __pydantic_config__ = _IGNORE

    columns: tuple[Column, ...]
    calibration_slope: _Finite
    calibration_intercept: _Finite
    unsubscribe_rates: dict[str, _Rate]
    """P(unsubscribe | send) by channel; a channel without one has the rules file's."""
    response: str = "order"
    """The outcome that p_response is the chance of."""
    trained_on: dict[str, str] = field(default_factory=dict)
    """For people: log, digest, seed, window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Rows, None for missing, and the raw scores that the model must give them."""

    __pydantic_config__ = _IGNORE

    rows: tuple[tuple[float | None, ...], ...]
    raw_scores: tuple[float, ...]


_MANIFEST = TypeAdapter(Manifest)
_DESCRIPTION = TypeAdapter(Description)
_GOLDEN = TypeAdapter(Golden)


class Bundle:
    """A verified bundle, ready to score."""

    def __init__(self, name: str, version: str, description: Description, booster: Booster) -> None:
        self.name = name
        self.version = version
        self.description = description
        self._booster = booster
        self._encoder = Encoder(description.columns)

    @property
    def tree_count(self) -> int:
        return self._booster.tree_count

    def estimate(
        self, context: Context, actions: Sequence[Action], default_unsubscribe: Mapping[str, float]
    ) -> Estimate:
        """Return what the model believes of each action, arrays of shape (len(actions),).

        Raises
        ------
        BoosterError: LightGBM refused the rows.
        """
        raw = self._booster.raw_scores(self._encoder.encode_actions(context, actions))
        rates = self.description.unsubscribe_rates
        unsubscribe = [rates.get(a.channel, default_unsubscribe.get(a.channel, 0.0)) for a in actions]
        return Estimate(p_response=self.calibrate(raw), p_unsubscribe=np.array(unsubscribe))

    def score_rows(self, matrix: FloatArray) -> FloatArray:
        """Return P(response) of encoded rows, shape (n,)."""
        return self.calibrate(self._booster.raw_scores(matrix))

    def calibrate(self, raw: FloatArray) -> FloatArray:
        """Turn raw scores into probabilities."""
        with np.errstate(over="ignore"):
            logit = self.description.calibration_slope * raw + self.description.calibration_intercept
            return 1 / (1 + np.exp(-logit))


def load_bundle(directory: Path) -> Bundle:
    """Read, verify and load a bundle.

    Raises
    ------
    BundleMissing: no manifest there. BundleCorrupt: a file is not what the manifest says. BundleIncompatible: another format, or a
    model that LightGBM or the golden rows refuse.
    """
    source = str(directory)
    try:
        manifest_bytes = (directory / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleMissing(source, f"has no {MANIFEST}; train one, or name the directory that holds it") from error
    try:
        manifest = _MANIFEST.validate_json(manifest_bytes)
    except ValidationError as error:
        raise BundleCorrupt(source, f"{MANIFEST} is not a manifest: {_first(error)}") from error
    if manifest.format != FORMAT:
        raise BundleIncompatible(
            source, f"has format {manifest.format}, this version serves format {FORMAT}; train it again"
        )
    contents = {name: _read_verified(directory, name, manifest) for name in _FILES}
    try:
        description = _DESCRIPTION.validate_json(contents[DESCRIPTION])
        golden = _GOLDEN.validate_json(contents[GOLDEN])
    except ValidationError as error:
        raise BundleIncompatible(source, f"a description that this version cannot read: {_first(error)}") from error
    try:
        booster = Booster(contents[RESPONSE].decode())
    except (BoosterError, UnicodeDecodeError) as error:
        raise BundleIncompatible(source, f"LightGBM refuses {RESPONSE}: {error}") from error
    if booster.column_count != len(description.columns):
        raise BundleIncompatible(
            source, f"{RESPONSE} has {booster.column_count} columns, {DESCRIPTION} has {len(description.columns)}"
        )
    _check_golden(source, booster, golden)
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    return Bundle(manifest.name, f"{manifest.name}-{digest[:12]}", description, booster)


def write_bundle(directory: Path, name: str, description: Description, model_text: str, golden_rows: FloatArray) -> str:
    """Write a bundle and return its version; the same arguments give the same bytes."""
    booster = Booster(model_text)
    golden = Golden(
        rows=tuple(tuple(None if np.isnan(x) else float(x) for x in row) for row in golden_rows),
        raw_scores=tuple(float(x) for x in booster.raw_scores(golden_rows)),
    )
    contents = {
        DESCRIPTION: _to_json(asdict(description)),
        RESPONSE: model_text.encode(),
        GOLDEN: _to_json(asdict(golden)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    files = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    (directory / MANIFEST).write_bytes(_to_json(asdict(Manifest(format=FORMAT, name=name, files=files))))
    return load_bundle(directory).version


def _to_json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _read_verified(directory: Path, name: str, manifest: Manifest) -> bytes:
    if name not in manifest.files:
        raise BundleCorrupt(str(directory), f"the manifest does not list {name}; fetch or train it again")
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise BundleCorrupt(str(directory), f"{name} is missing; fetch or train it again") from error
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise BundleCorrupt(str(directory), f"the sha256 of {name} is not the manifest's; fetch or train it again")
    return content


def _check_golden(source: str, booster: Booster, golden: Golden) -> None:
    try:
        rows = np.array([[np.nan if x is None else x for x in row] for row in golden.rows], dtype=np.float64)
        differences = np.subtract(booster.raw_scores(rows), golden.raw_scores)
    except (BoosterError, ValueError) as error:
        raise BundleIncompatible(source, f"the golden rows do not fit the model: {error}") from error
    worst = float(np.abs(differences).max(initial=0.0))
    if not worst <= _GOLDEN_TOLERANCE:
        raise BundleIncompatible(source, f"the golden rows score {worst:g} away from what they did when it was trained")
