"""The bundle: a plain directory that serves, with no code and no pickle in it.

    manifest.json       format, name and the sha256 of each file below
    bundle.json         columns with their categories, calibration, unsubscribe rates, where it was trained
    response.txt        LightGBM model of an order, one for all actions
    funnel.json         a funnel (models.curves), where the bundle has one: columns, scaling, rhythms, lags, linear parts
    notice.txt, click.txt, order.txt, organic.txt, unsubscribe.txt
                        trees of its stages; a stage may have none
    golden.json         rows with their scores by every model, and questions with their answers (models.golden), which must come out again on load

Without a funnel P(order | x, a) is the one model's, calibrated: P = 1 / (1 + exp(-(slope x raw score + intercept))). Source of the
calibration: Platt (1999), "Probabilistic Outputs for Support Vector Machines".
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.actions import Estimate
from models.booster import Booster, BoosterError
from models.context import Context
from models.curves import STAGES, Asked, FunnelDescription, FunnelModel, Sketch, made_before
from models.errors import BundleCorrupt, BundleIncompatible, BundleMissing, BundleSlow
from models.features import Action, Column, Encoder
from models.golden import GoldenAnswer, Question, make_questions
from models.slate import Actions

FloatArray = NDArray[np.float64]
FORMAT = 1
MANIFEST, DESCRIPTION, RESPONSE, GOLDEN = "manifest.json", "bundle.json", "response.txt", "golden.json"
FUNNEL = "funnel.json"
_ALWAYS = (DESCRIPTION, RESPONSE, GOLDEN)
_FILES = (*_ALWAYS, FUNNEL, *(f"{stage}.txt" for stage in STAGES))
_GOLDEN_TOLERANCE = 1e-9
_ANSWER_TOLERANCE = 1e-6
"""Of a chance."""
_ANSWER_DIGITS = 9
_TIMED_ROUNDS = 3
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
class Description:
    """How a bundle's model is fed and read."""

    __pydantic_config__ = _IGNORE

    columns: tuple[Column, ...]
    calibration_slope: _Finite
    calibration_intercept: _Finite
    unsubscribe_rates: dict[str, _Rate]
    """P(unsubscribe | send) by channel; a channel without one has the rules file's."""
    has_funnel: bool = False
    """Whether the funnel serves."""
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
    stage_rows: tuple[tuple[float | None, ...], ...] = ()
    """Rows by the funnel's columns."""
    stage_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    answers: tuple[GoldenAnswer, ...] = ()
    """Empty in bundles from before there were any; their rows are compared all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """How long scoring all golden rows and questions may take, by a clock that counts seconds; the fastest of three rounds counts."""

    seconds: float
    timer: Callable[[], float]


_MANIFEST = TypeAdapter(Manifest)
_DESCRIPTION = TypeAdapter(Description)
_GOLDEN = TypeAdapter(Golden)
_FUNNEL = TypeAdapter(FunnelDescription)


class Bundle:
    """A verified bundle, ready to score."""

    def __init__(
        self,
        name: str,
        version: str,
        description: Description,
        booster: Booster,
        funnel: FunnelModel | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.description = description
        self.funnel = funnel
        self._booster = booster
        self._encoder = Encoder(description.columns)

    def with_funnel(self, funnel: FunnelModel | None) -> "Bundle":
        """Return the same bundle with another funnel, or without one."""
        return Bundle(self.name, self.version, self.description, self._booster, funnel)

    @property
    def tree_count(self) -> int:
        """Trees of the models that serve."""
        return self._booster.tree_count if self.funnel is None else self.funnel.tree_count

    def estimate(
        self,
        context: Context,
        actions: Sequence[Action],
        default_unsubscribe: Mapping[str, float],
        harm_micros: float = 0.0,
    ) -> Estimate:
        """Return what the model believes of each action, no send the first; arrays of shape (len(actions),).

        `harm_micros` is what an unsubscribe costs.

        Raises
        ------
        BoosterError: LightGBM refused the rows.
        """
        (found,) = self.estimate_each([context], Actions.of(actions), default_unsubscribe, harm_micros)
        return found

    def estimate_each(
        self,
        contexts: Sequence[Context],
        actions: Actions,
        default_unsubscribe: Mapping[str, float],
        harm_micros: float = 0.0,
    ) -> list[Estimate]:
        """Return what the model believes of the same actions in several contexts; see `estimate`."""
        if self.funnel is not None:
            (found,) = _funnel_estimates(self.funnel, [(contexts, actions)], harm_micros)
            return found
        matrices = self._encoder.encode_each(contexts, actions)
        rates = self.description.unsubscribe_rates
        of_channel = np.array([rates.get(name, default_unsubscribe.get(name, 0.0)) for name in actions.names])
        p_response = self.calibrate(np.array([self._booster.raw_scores(matrix) for matrix in matrices]))
        unsubscribe = of_channel[actions.channel] if len(actions) else np.zeros(0)
        return [Estimate(p_response=of_one, p_unsubscribe=unsubscribe) for of_one in p_response]

    def estimate_groups(
        self,
        groups: Sequence[tuple[Sequence[Context], Actions]],
        default_unsubscribe: Mapping[str, float],
        harm_micros: float = 0.0,
    ) -> list[list[Estimate]]:
        """Return the same of several groups of contexts, each with actions of its own; see `estimate`. A funnel says it of all of them together."""
        if self.funnel is not None:
            return _funnel_estimates(self.funnel, groups, harm_micros)
        return [self.estimate_each(*group, default_unsubscribe, harm_micros) for group in groups]

    def calibrate(self, raw: FloatArray) -> FloatArray:
        """Turn raw scores of the one model into probabilities."""
        return Calibration(
            slope=self.description.calibration_slope, intercept=self.description.calibration_intercept
        ).apply(raw)


def _funnel_estimates(
    funnel: FunnelModel, groups: Sequence[tuple[Sequence[Context], Actions]], harm_micros: float
) -> list[list[Estimate]]:
    asked = [
        Asked(
            context=context,
            sends=actions.timed,
            made=made_before(context),
            margin_micros=context.message.order_margin_micros,
            actions=actions,
        )
        for contexts, actions in groups
        for context in contexts
    ]
    found = iter(funnel.sketch_each(asked, harm_micros))
    return [[_funnel_estimate(next(found)) for _ in contexts] for contexts, _ in groups]


def _funnel_estimate(curves: Sketch) -> Estimate:
    p_response, p_unsubscribe = np.empty((2, 1 + len(curves.uplift)))
    p_response[0], p_unsubscribe[0] = curves.p_organic, 0.0
    p_response[1:] = np.minimum(np.maximum(curves.p_organic + curves.uplift, 0.0), 1.0)
    p_unsubscribe[1:] = curves.p_unsubscribe
    return Estimate(p_response=p_response, p_unsubscribe=p_unsubscribe, curves=curves)


def load_bundle(directory: Path, limit: TimeLimit | None = None) -> Bundle:
    """Read, verify and load a bundle.

    Raises
    ------
    BundleMissing: no manifest there. BundleCorrupt: a file is not what the manifest says. BundleIncompatible: another format, or a
    model that LightGBM, the golden rows or the golden answers refuse. BundleSlow: scoring them takes longer than the limit.
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
    booster = _load_booster(source, RESPONSE, contents[RESPONSE], DESCRIPTION, len(description.columns))
    _check_golden(source, RESPONSE, booster.raw_scores, golden.rows, golden.raw_scores)
    funnel = _load_funnel(directory, manifest, golden) if description.has_funnel else None
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    bundle = Bundle(manifest.name, f"{manifest.name}-{digest[:12]}", description, booster, funnel)
    for number, answer in enumerate(golden.answers):
        _check_answer(source, number, answer, bundle)
    if limit is not None:
        _check_time(source, partial(_score_all, bundle, booster, golden), limit)
    return bundle


def _load_funnel(directory: Path, manifest: Manifest, golden: Golden) -> FunnelModel:
    source = str(directory)
    try:
        description = _FUNNEL.validate_json(_read_verified(directory, FUNNEL, manifest))
    except ValidationError as error:
        raise BundleIncompatible(source, f"a {FUNNEL} that this version cannot read: {_first(error)}") from error
    missing = [stage for stage in STAGES if stage not in description.stages]
    if missing:
        raise BundleIncompatible(source, f"{FUNNEL} lacks the stage {missing[0]}")
    boosters = {}
    for stage in STAGES:
        if description.stages[stage].has_trees:
            file = f"{stage}.txt"
            content = _read_verified(directory, file, manifest)
            boosters[stage] = _load_booster(source, file, content, FUNNEL, len(description.columns))
    try:
        funnel = FunnelModel(description, boosters)
    except ValueError as error:
        raise BundleIncompatible(source, f"the parts of {FUNNEL} do not fit each other: {error}") from error
    for stage in STAGES:
        expected = golden.stage_scores.get(stage, ())
        _check_golden(source, f"the stage {stage}", partial(funnel.scores, stage), golden.stage_rows, expected)
    return funnel


def _load_booster(source: str, file: str, content: bytes, described: str, columns: int) -> Booster:
    try:
        booster = Booster(content.decode())
    except (BoosterError, UnicodeDecodeError) as error:
        raise BundleIncompatible(source, f"LightGBM refuses {file}: {error}") from error
    if booster.column_count != columns:
        raise BundleIncompatible(source, f"{file} has {booster.column_count} columns, {described} has {columns}")
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
    funnel: FunnelDescription | None = None,
    stage_texts: Mapping[str, str] | None = None,
) -> str:
    """Write a bundle and return its version; the same arguments give the same bytes. `stage_texts` are the trees of the funnel's stages."""
    texts = dict(stage_texts or {})
    stage_rows, stage_scores, model = np.zeros((0, 0)), {}, None
    description = replace(description, has_funnel=funnel is not None)
    contents = {DESCRIPTION: _to_json(asdict(description)), RESPONSE: model_text.encode()}
    if funnel is not None:
        names = [column.name for column in description.columns]
        stage_rows = np.ascontiguousarray(golden_rows[:, [names.index(column.name) for column in funnel.columns]])
        model = FunnelModel(funnel, {stage: Booster(text) for stage, text in texts.items()})
        stage_scores = {stage: tuple(float(x) for x in model.scores(stage, stage_rows)) for stage in STAGES}
        contents |= {
            FUNNEL: _to_json(asdict(funnel)),
            **{f"{stage}.txt": text.encode() for stage, text in texts.items()},
        }
    booster = Booster(model_text)
    bundle = Bundle(name, "", description, booster, model)
    columns = description.columns if funnel is None else funnel.columns
    golden = Golden(
        rows=_rows(golden_rows),
        raw_scores=tuple(float(x) for x in booster.raw_scores(golden_rows)),
        stage_rows=_rows(stage_rows),
        stage_scores=stage_scores,
        answers=_answers(source=str(directory), bundle=bundle, columns=columns),
    )
    contents[GOLDEN] = _to_json(_GOLDEN.dump_python(golden, mode="json", exclude_defaults=True))
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    files = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    (directory / MANIFEST).write_bytes(_to_json(asdict(Manifest(format=FORMAT, name=name, files=files))))
    return load_bundle(directory).version


def _estimate(question: Question, bundle: Bundle) -> Estimate:
    return bundle.estimate(question.context, question.actions, {})


def _answers(source: str, bundle: Bundle, columns: Sequence[Column]) -> tuple[GoldenAnswer, ...]:
    found = []
    for question in make_questions(columns):
        try:
            estimate = _estimate(question, bundle)
        except BoosterError as error:
            raise BundleIncompatible(source, f"the model does not fit its columns: {error}") from error
        found.append(
            GoldenAnswer(
                question=question,
                p_response=tuple(round(float(p), _ANSWER_DIGITS) for p in estimate.p_response),
                p_unsubscribe=tuple(round(float(p), _ANSWER_DIGITS) for p in estimate.p_unsubscribe),
            )
        )
    return tuple(found)


def _rows(matrix: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if np.isnan(x) else float(x) for x in row) for row in matrix)


def _matrix(rows: Sequence[Sequence[float | None]]) -> FloatArray:
    return np.array([[np.nan if x is None else x for x in row] for row in rows], dtype=np.float64)


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
    source: str,
    what: str,
    score: Callable[[FloatArray], FloatArray],
    rows: Sequence[Sequence[float | None]],
    expected: Sequence[float],
) -> None:
    try:
        differences = np.subtract(score(_matrix(rows)), expected)
    except (BoosterError, ValueError, IndexError) as error:
        raise BundleIncompatible(source, f"the golden rows do not fit {what}: {error}") from error
    worst = float(np.abs(differences).max(initial=0.0))
    if not worst <= _GOLDEN_TOLERANCE:
        raise BundleIncompatible(
            source, f"the golden rows score {worst:g} away by {what} from what they did when it was trained"
        )


def _check_answer(source: str, number: int, answer: GoldenAnswer, bundle: Bundle) -> None:
    try:
        found = _estimate(answer.question, bundle)
        differences = np.concatenate(
            [
                np.subtract(found.p_response, answer.p_response),
                np.subtract(found.p_unsubscribe, answer.p_unsubscribe),
            ]
        )
    except (BoosterError, ValueError, IndexError, KeyError) as error:
        raise BundleIncompatible(source, f"golden question {number} cannot be answered: {error}") from error
    worst = float(np.abs(differences).max(initial=0.0))
    if not worst <= _ANSWER_TOLERANCE:
        raise BundleIncompatible(
            source,
            f"golden question {number} is answered {worst:g} away from what it was when it was trained; train it again with this version",
        )


def _score_all(bundle: Bundle, booster: Booster, golden: Golden) -> None:
    booster.raw_scores(_matrix(golden.rows))
    if bundle.funnel is not None:
        for stage in STAGES:
            bundle.funnel.scores(stage, _matrix(golden.stage_rows))
    for answer in golden.answers:
        _estimate(answer.question, bundle)


def _check_time(source: str, score: Callable[[], None], limit: TimeLimit) -> None:
    fastest = min(_seconds(score, limit.timer) for _ in range(_TIMED_ROUNDS))
    if fastest > limit.seconds:
        raise BundleSlow(
            source,
            f"takes {1000 * fastest:.0f} ms to score its golden rows, {1000 * limit.seconds:.0f} ms are allowed; "
            "train one with fewer trees, or raise bundle_limit_ms",
        )


def _seconds(score: Callable[[], None], timer: Callable[[], float]) -> float:
    began = timer()
    score()
    return timer() - began
