"""The bundle: a plain directory that serves, with no code and no pickle in it.

    manifest.json       format, name and the sha256 of each file below
    bundle.json         columns with their categories, calibration, unsubscribe rates, where it was trained
    response.txt        LightGBM model of an order, one for all actions
    engage.txt, engaged_order.txt, organic.txt
                        models of the stages of a funnel, where the bundle has one
    golden.json         rows with their raw scores by every model, which must come out again on load

Without a funnel P(order | x, a) is the one model's. With one, for a context x and an action a,

    P(order | x, no send) = P_organic(x)
    P(order | x, a)       = P_organic(x) + scale x P_engage(x, a) x max(0, P_order(x, a | engaged) - P_organic(x))

so that a rare order is learned from the denser things that lead to it. `scale` fits the sum of these effects to the randomised
difference between send and no send. All scores are calibrated: P = 1 / (1 + exp(-(slope x raw score + intercept))). Source of the
calibration: Platt (1999), "Probabilistic Outputs for Support Vector Machines".
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
STAGES = ("engage", "engaged_order", "organic")
_ALWAYS = (DESCRIPTION, RESPONSE, GOLDEN)
_FILES = (*_ALWAYS, *(f"{stage}.txt" for stage in STAGES))
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
class Calibration:
    """How raw scores become probabilities."""

    __pydantic_config__ = _IGNORE

    slope: _Finite
    intercept: _Finite

    def apply(self, raw: FloatArray) -> FloatArray:
        """Turn raw scores into probabilities."""
        with np.errstate(over="ignore"):
            found: FloatArray = 1 / (1 + np.exp(-(self.slope * raw + self.intercept)))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How the stages are read."""

    __pydantic_config__ = _IGNORE

    engage: Calibration
    engaged_order: Calibration
    organic: Calibration
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    engagement: str
    """The outcome that counts as engaging, such as clicked or seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """How a bundle's model is fed and read."""

    __pydantic_config__ = _IGNORE

    columns: tuple[Column, ...]
    calibration_slope: _Finite
    calibration_intercept: _Finite
    unsubscribe_rates: dict[str, _Rate]
    """P(unsubscribe | send) by channel; a channel without one has the rules file's."""
    funnel: Funnel | None = None
    """Present where the funnel serves."""
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
    stage_raw_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)


_MANIFEST = TypeAdapter(Manifest)
_DESCRIPTION = TypeAdapter(Description)
_GOLDEN = TypeAdapter(Golden)


class Bundle:
    """A verified bundle, ready to score."""

    def __init__(
        self,
        name: str,
        version: str,
        description: Description,
        booster: Booster,
        stages: Mapping[str, Booster] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.description = description
        self._booster = booster
        self._stages = dict(stages or {})
        self._encoder = Encoder(description.columns)

    @property
    def tree_count(self) -> int:
        """Trees of the models that serve."""
        serving = self._stages.values() if self.description.funnel is not None else [self._booster]
        return sum(booster.tree_count for booster in serving)

    def estimate(
        self, context: Context, actions: Sequence[Action], default_unsubscribe: Mapping[str, float]
    ) -> Estimate:
        """Return what the model believes of each action, arrays of shape (len(actions),).

        Raises
        ------
        BoosterError: LightGBM refused the rows.
        """
        matrix = self._encoder.encode_actions(context, actions)
        is_send = np.array([action.send_time is not None for action in actions], dtype=bool)
        rates = self.description.unsubscribe_rates
        unsubscribe = [rates.get(a.channel, default_unsubscribe.get(a.channel, 0.0)) for a in actions]
        return Estimate(p_response=self._score(matrix, matrix[:1], is_send), p_unsubscribe=np.array(unsubscribe))

    def score_rows(self, matrix: FloatArray, is_send: NDArray[np.bool_]) -> FloatArray:
        """Return P(order) of encoded rows, shape (n,); `is_send`, shape (n,), tells which are of a send.

        Raises
        ------
        BoosterError: LightGBM refused the rows.
        """
        return self._score(matrix, matrix, is_send)

    def _score(self, matrix: FloatArray, contexts: FloatArray, is_send: NDArray[np.bool_]) -> FloatArray:
        """Score rows; `contexts` are the rows for the organic stage, one where all rows are of one context."""
        funnel = self.description.funnel
        if funnel is None:
            return self.calibrate(self._booster.raw_scores(matrix))
        engage, order = (self._stages[stage].raw_scores(matrix) for stage in ("engage", "engaged_order"))
        return combine(funnel, engage, order, self._stages["organic"].raw_scores(contexts), is_send)

    def calibrate(self, raw: FloatArray) -> FloatArray:
        """Turn raw scores of the one model into probabilities."""
        return Calibration(
            slope=self.description.calibration_slope, intercept=self.description.calibration_intercept
        ).apply(raw)


def combine(
    funnel: Funnel, engage: FloatArray, engaged_order: FloatArray, organic: FloatArray, is_send: NDArray[np.bool_]
) -> FloatArray:
    """Return P(order) from the raw scores of the stages, of shape (n,) or, for one context, (1,)."""
    base = funnel.organic.apply(organic)
    gain = np.maximum(funnel.engaged_order.apply(engaged_order) - base, 0.0)
    effect = funnel.scale * funnel.engage.apply(engage) * gain
    found: FloatArray = np.minimum(base + np.where(is_send, effect, 0.0), 1.0)
    return found


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
    contents = {name: _read_verified(directory, name, manifest) for name in _ALWAYS}
    try:
        description = _DESCRIPTION.validate_json(contents[DESCRIPTION])
        golden = _GOLDEN.validate_json(contents[GOLDEN])
    except ValidationError as error:
        raise BundleIncompatible(source, f"a description that this version cannot read: {_first(error)}") from error
    stages = STAGES if description.funnel is not None else ()
    contents |= {f"{stage}.txt": _read_verified(directory, f"{stage}.txt", manifest) for stage in stages}
    files = (RESPONSE, *(f"{stage}.txt" for stage in stages))
    boosters = {file: _load_booster(source, file, contents[file], len(description.columns)) for file in files}
    expected = {RESPONSE: golden.raw_scores, **{f"{name}.txt": v for name, v in golden.stage_raw_scores.items()}}
    for file, booster in boosters.items():
        _check_golden(source, file, booster, golden.rows, expected.get(file, ()))
    by_stage = {stage: boosters[f"{stage}.txt"] for stage in stages}
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    return Bundle(manifest.name, f"{manifest.name}-{digest[:12]}", description, boosters[RESPONSE], by_stage)


def _load_booster(source: str, file: str, content: bytes, columns: int) -> Booster:
    try:
        booster = Booster(content.decode())
    except (BoosterError, UnicodeDecodeError) as error:
        raise BundleIncompatible(source, f"LightGBM refuses {file}: {error}") from error
    if booster.column_count != columns:
        raise BundleIncompatible(source, f"{file} has {booster.column_count} columns, {DESCRIPTION} has {columns}")
    return booster


def listed_files(manifest: bytes) -> tuple[str, ...]:
    """Return which of the files that a bundle may have its manifest lists; none where it is no manifest."""
    try:
        listed = _MANIFEST.validate_json(manifest).files
    except ValidationError:
        return ()
    return tuple(file for file in _FILES if file in listed)


def write_bundle(
    directory: Path,
    name: str,
    description: Description,
    model_text: str,
    golden_rows: FloatArray,
    stage_texts: Mapping[str, str] | None = None,
) -> str:
    """Write a bundle and return its version; the same arguments give the same bytes. A funnel needs the texts of its stages."""
    texts = dict(stage_texts or {})
    golden = Golden(
        rows=tuple(tuple(None if np.isnan(x) else float(x) for x in row) for row in golden_rows),
        raw_scores=_scores(model_text, golden_rows),
        stage_raw_scores={stage: _scores(text, golden_rows) for stage, text in texts.items()},
    )
    contents = {
        DESCRIPTION: _to_json(asdict(description)),
        RESPONSE: model_text.encode(),
        GOLDEN: _to_json(asdict(golden)),
        **{f"{stage}.txt": text.encode() for stage, text in texts.items()},
    }
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    files = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    (directory / MANIFEST).write_bytes(_to_json(asdict(Manifest(format=FORMAT, name=name, files=files))))
    return load_bundle(directory).version


def _scores(model_text: str, rows: FloatArray) -> tuple[float, ...]:
    return tuple(float(x) for x in Booster(model_text).raw_scores(rows))


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


def _check_golden(
    source: str, file: str, booster: Booster, rows: Sequence[Sequence[float | None]], expected: Sequence[float]
) -> None:
    try:
        matrix = np.array([[np.nan if x is None else x for x in row] for row in rows], dtype=np.float64)
        differences = np.subtract(booster.raw_scores(matrix), expected)
    except (BoosterError, ValueError) as error:
        raise BundleIncompatible(source, f"the golden rows do not fit {file}: {error}") from error
    worst = float(np.abs(differences).max(initial=0.0))
    if not worst <= _GOLDEN_TOLERANCE:
        raise BundleIncompatible(
            source, f"the golden rows score {worst:g} away by {file} from what they did when it was trained"
        )
