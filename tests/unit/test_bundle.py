"""Bundles: written, verified, loaded and scored as LightGBM itself scores."""

import hashlib
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.booster import Booster, BoosterError
from models.bundle import (
    DESCRIPTION,
    FORMAT,
    FUNNEL,
    GOLDEN,
    MANIFEST,
    RESPONSE,
    Description,
    TimeLimit,
    listed_files,
    load_bundle,
    write_bundle,
)
from models.curves import AGE_BINS, HOUR_BINS, STAGES, ChannelLag, FunnelDescription, FunnelModel, StageWeights
from models.errors import BundleCorrupt, BundleError, BundleIncompatible, BundleMissing, BundleSlow
from models.features import NO_SEND, Action, Column
from models.rhythm import WEEK, RhythmTypes
from models.stage import Scaling
from tests.unit.examples import CONTEXT, HOUR, NOW, bundle_of

FloatArray = NDArray[np.float64]
CHANNELS = (NO_SEND, "push", "email", "sms")
COLUMNS = (
    Column(name="channel", kind="category", categories=CHANNELS),
    Column(name="lag_hours", kind="number"),
    Column(name="contacts_7d", kind="number"),
    Column(name="x.score", kind="number"),
)
DESCRIBED = Description(
    columns=COLUMNS,
    calibration_slope=0.9,
    calibration_intercept=-0.1,
    unsubscribe_rates={"push": 0.002, "sms": 0.004},
    trained_on={"log": "made up"},
)
ACTIONS = [
    Action(channel=NO_SEND),
    *(Action(channel=c, send_time=NOW + h * HOUR) for c in CHANNELS[1:] for h in (0, 3)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A small model, as LightGBM holds it and as text, with rows to try it on."""

    booster: lightgbm.Booster
    text: str
    rows: FloatArray


def make_rows(rng: np.random.Generator, n: int) -> FloatArray:
    rows = np.column_stack(
        [rng.integers(0, 4, n), rng.uniform(0, 24, n), rng.integers(0, 9, n), rng.normal(size=n)]
    ).astype(np.float64)
    rows[rng.random(n) < 0.2, 1] = np.nan
    rows[rng.random(n) < 0.1, 3] = np.nan
    rows[rng.random(n) < 0.1, 0] = np.nan
    return rows


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A small model trained on made-up rows with missing values."""
    rng = np.random.default_rng(7)
    rows = make_rows(rng, 2_000)
    chance = 0.1 + 0.2 * (rows[:, 0] == 3) + 0.1 * (np.nan_to_num(rows[:, 3]) > 0)
    data = lightgbm.Dataset(rows, label=rng.random(2_000) < chance, categorical_feature=[0], free_raw_data=False)
    parameters = {"objective": "binary", "num_leaves": 15, "verbose": -1, "seed": 7, "num_threads": 1, "min_data": 5}
    booster = lightgbm.train(parameters, data, num_boost_round=20)
    return Trained(booster=booster, text=booster.model_to_string(), rows=rows[:50])


@pytest.fixture
def written(trained: Trained, tmp_path: Path) -> Path:
    """The directory of a bundle in order."""
    directory = tmp_path / "bundle"
    write_bundle(directory, "spring", DESCRIBED, trained.text, trained.rows)
    return directory


def reseal(directory: Path) -> None:
    """Make the manifest agree with the files, as whoever wrote them wrong would have done."""
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"] = {n: hashlib.sha256((directory / n).read_bytes()).hexdigest() for n in manifest["files"]}
    (directory / MANIFEST).write_text(json.dumps(manifest))


def change_json(directory: Path, file: str, **changes: object) -> None:
    path = directory / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- write and load -----------------------------------------------------------------------------------------------------------


def test_bundle_that_was_written_is_loaded(trained: Trained, tmp_path: Path) -> None:
    """A bundle is loaded with the description and the version that it was written with."""
    version = write_bundle(tmp_path / "a" / "b", "spring", DESCRIBED, trained.text, trained.rows)

    bundle = load_bundle(tmp_path / "a" / "b")

    assert bundle.version == version
    assert bundle.version.startswith("spring-")
    assert (bundle.name, bundle.description, bundle.tree_count) == ("spring", DESCRIBED, 20)


def test_same_arguments_write_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    """A bundle written twice has the same files to the byte, and the same version."""
    versions = {write_bundle(tmp_path / n, "spring", DESCRIBED, trained.text, trained.rows) for n in "ab"}

    assert len(versions) == 1
    for file in (MANIFEST, DESCRIPTION, RESPONSE, GOLDEN):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_any_difference_is_another_version(trained: Trained, tmp_path: Path) -> None:
    """Bundles of one name that differ in anything have different versions."""
    other = replace(DESCRIBED, calibration_intercept=-0.2)

    first = write_bundle(tmp_path / "a", "spring", DESCRIBED, trained.text, trained.rows)

    assert write_bundle(tmp_path / "b", "spring", other, trained.text, trained.rows) != first
    assert write_bundle(tmp_path / "c", "spring", DESCRIBED, trained.text, trained.rows[:9]) != first


def test_bundle_that_could_not_be_loaded_is_not_written(trained: Trained, tmp_path: Path) -> None:
    """Writing fails at once where the model is no model, or does not fit its columns."""
    narrow = replace(DESCRIBED, columns=COLUMNS[:2])

    with pytest.raises(BoosterError):
        write_bundle(tmp_path / "a", "spring", DESCRIBED, "no model", trained.rows)
    with pytest.raises(BundleIncompatible):
        write_bundle(tmp_path / "b", "spring", narrow, trained.text, trained.rows)


def test_unknown_keys_of_a_later_version_are_passed_over(written: Path) -> None:
    """A description with a key that this version does not know is read all the same."""
    change_json(written, DESCRIPTION, colour="green")
    reseal(written)

    assert load_bundle(written).description == DESCRIBED


# --- corruptions --------------------------------------------------------------------------------------------------------------


def remove(file: str) -> Callable[[Path], None]:
    return lambda directory: (directory / file).unlink()


def replace_bytes(file: str, content: bytes, *, sealed: bool = False) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / file).write_bytes(content)
        if sealed:
            reseal(directory)

    return change


def change_keys(file: str, *, sealed: bool = True, **changes: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        change_json(directory, file, **changes)
        if sealed:
            reseal(directory)

    return change


def flip_a_byte(file: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        content = bytearray((directory / file).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / file).write_bytes(bytes(content))

    return change


def cut_in_half(file: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        content = (directory / file).read_bytes()
        (directory / file).write_bytes(content[: len(content) // 2])

    return change


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (remove(MANIFEST), BundleMissing, "train one"),
        (replace_bytes(MANIFEST, b""), BundleCorrupt, "not a manifest"),
        (replace_bytes(MANIFEST, b"\xff\xfe"), BundleCorrupt, "not a manifest"),
        (replace_bytes(MANIFEST, b"[]"), BundleCorrupt, "not a manifest"),
        (cut_in_half(MANIFEST), BundleCorrupt, "not a manifest"),
        (change_keys(MANIFEST, sealed=False, format="one"), BundleCorrupt, "format"),
        (change_keys(MANIFEST, sealed=False, format=FORMAT + 1), BundleIncompatible, "train it again"),
        (change_keys(MANIFEST, sealed=False, files={}), BundleCorrupt, "fetch or train it again"),
        *[
            (damage(file), BundleCorrupt, f"{file}.*fetch or train it again")
            for file in (DESCRIPTION, RESPONSE, GOLDEN)
            for damage in (remove, flip_a_byte, cut_in_half)
        ],
        (replace_bytes(DESCRIPTION, b"{", sealed=True), BundleIncompatible, "cannot read"),
        (replace_bytes(DESCRIPTION, b"\xff", sealed=True), BundleIncompatible, "cannot read"),
        (change_keys(DESCRIPTION, columns=[{"name": "channel", "kind": "vector"}]), BundleIncompatible, "columns"),
        (change_keys(DESCRIPTION, columns=[]), BundleIncompatible, "4 columns.*has 0"),
        (change_keys(DESCRIPTION, unsubscribe_rates={"push": 1.5}), BundleIncompatible, "unsubscribe_rates"),
        (change_keys(DESCRIPTION, calibration_slope=float("nan")), BundleIncompatible, "calibration_slope"),
        (change_keys(DESCRIPTION, calibration_intercept=float("inf")), BundleIncompatible, "calibration_intercept"),
        (replace_bytes(RESPONSE, b"no model", sealed=True), BundleIncompatible, "LightGBM refuses"),
        (replace_bytes(RESPONSE, b"\xff\xfe", sealed=True), BundleIncompatible, "LightGBM refuses"),
        (replace_bytes(RESPONSE, b"", sealed=True), BundleIncompatible, "LightGBM refuses"),
        (change_keys(GOLDEN, raw_scores=[9.0] * 50), BundleIncompatible, "golden rows"),
        (change_keys(GOLDEN, raw_scores=[9.0] * 49), BundleIncompatible, "golden rows"),
        (change_keys(GOLDEN, rows=[[1.0]], raw_scores=[0.0]), BundleIncompatible, "golden rows"),
        (change_keys(GOLDEN, rows=[[1.0], [1.0, 2.0]], raw_scores=[0.0, 0.0]), BundleIncompatible, "golden rows"),
        (change_keys(GOLDEN, rows=[], raw_scores=[]), BundleIncompatible, "golden rows"),
        (change_keys(GOLDEN, raw_scores=[float("nan")] * 50), BundleIncompatible, "golden rows"),
    ],
)
def test_damaged_bundle_is_refused(
    written: Path, damage: Callable[[Path], None], error: type[BundleError], says: str
) -> None:
    """Each kind of damage is refused with its own error, that names the bundle, the file, and what to do."""
    damage(written)

    with pytest.raises(error, match=says) as caught:
        load_bundle(written)

    assert type(caught.value) is error
    assert caught.value.source == str(written)


def test_place_without_a_bundle_is_missing(tmp_path: Path) -> None:
    """A directory that does not exist, or that is a file, holds no bundle."""
    file = tmp_path / "file"
    file.touch()

    for place in (tmp_path / "nowhere", file, tmp_path):
        with pytest.raises(BundleMissing, match="name the directory"):
            load_bundle(place)


def test_model_of_several_outputs_is_refused() -> None:
    """A model with an output for each of several classes is not served."""
    rng = np.random.default_rng(1)
    data = lightgbm.Dataset(rng.normal(size=(60, 2)), label=np.arange(60) % 3)
    parameters = {"objective": "multiclass", "num_class": 3, "verbose": -1, "min_data": 1, "num_threads": 1}
    booster = lightgbm.train(parameters, data, num_boost_round=1)

    with pytest.raises(BoosterError, match="3 outputs"):
        Booster(booster.model_to_string())


# --- scores -------------------------------------------------------------------------------------------------------------------

EXTREMES = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1e-35,
    -1e-35,
    1e-300,
    5e-324,
    1.8e308,
    -1.8e308,
    2**31,
    -1.0,
    99.0,
    0.5,
]
CELLS = st.sampled_from(EXTREMES) | st.floats(width=64) | st.integers(-5, 10).map(float)


def test_model_that_is_cut_off_is_refused(trained: Trained) -> None:
    """A model's text cut anywhere before its end is an error, not the end of the process."""
    for cut in range(0, len(trained.text.split("end of trees")[0]), 211):
        with pytest.raises(BoosterError, match="cut off"):
            Booster(trained.text[:cut])


def predicted(trained: Trained, rows: FloatArray) -> FloatArray:
    scores: FloatArray = np.asarray(trained.booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)
    return scores


def test_scores_are_those_of_lightgbm_to_the_bit(trained: Trained) -> None:
    """Raw scores equal those of the lightgbm package on ordinary rows with missing values."""
    rows = make_rows(np.random.default_rng(8), 500)

    assert Booster(trained.text).raw_scores(rows).tobytes() == predicted(trained, rows).tobytes()


@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=30))
def test_scores_of_any_numbers_are_those_of_lightgbm(trained: Trained, cells: list[tuple[float, ...]]) -> None:
    """Raw scores equal those of the lightgbm package on missing, infinite, extreme and unseen values."""
    rows = np.array(cells)

    assert Booster(trained.text).raw_scores(rows).tobytes() == predicted(trained, rows).tobytes()


def test_layout_of_the_matrix_does_not_matter(trained: Trained) -> None:
    """Rows in column order, sliced, or of another type are scored alike; a row's score does not depend on the others."""
    booster = Booster(trained.text)
    rows = make_rows(np.random.default_rng(9), 40)
    expected = booster.raw_scores(rows)

    assert booster.raw_scores(np.asfortranarray(rows)).tobytes() == expected.tobytes()
    assert booster.raw_scores(rows[::2]).tobytes() == expected[::2].tobytes()
    assert np.concatenate([booster.raw_scores(row[None]) for row in rows]).tobytes() == expected.tobytes()


def test_no_rows_have_no_scores(trained: Trained) -> None:
    """A matrix without rows has no scores."""
    assert Booster(trained.text).raw_scores(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 5), (1, 2, 4)])
def test_matrix_of_another_shape_is_refused(trained: Trained, shape: tuple[int, ...]) -> None:
    """A matrix that is not rows of the model's columns is refused before LightGBM reads beyond it."""
    with pytest.raises(BoosterError, match="shape"):
        Booster(trained.text).raw_scores(np.zeros(shape))


def test_threads_that_score_at_once_agree(trained: Trained) -> None:
    """Eight threads with rows of their own get the scores that each would get alone."""
    booster = Booster(trained.text)
    batches = [make_rows(np.random.default_rng(seed), 300) for seed in range(40)]
    expected = [booster.raw_scores(rows).tobytes() for rows in batches]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda rows: booster.raw_scores(rows).tobytes(), batches * 5))

    assert found == expected * 5


def test_boosters_come_and_go_apart(trained: Trained) -> None:
    """A booster that is freed takes nothing from another of the same model."""
    kept, freed = Booster(trained.text), Booster(trained.text)
    expected = kept.raw_scores(trained.rows)

    del freed

    assert kept.raw_scores(trained.rows).tobytes() == expected.tobytes()


# --- probabilities ------------------------------------------------------------------------------------------------------------


def test_estimate_is_calibrated_and_has_a_rate_of_unsubscribing_for_every_action(
    trained: Trained, written: Path
) -> None:
    """P(response) is Platt's calibration of the raw scores; a channel without a rate has the default, no send none."""
    bundle = load_bundle(written)

    estimate = bundle.estimate(CONTEXT, ACTIONS, {"email": 0.1, "push": 0.9})

    rows = np.array([[CHANNELS.index(a.channel), np.nan, 0.0, np.nan] for a in ACTIONS])
    rows[1:, 1] = [0, 3] * 3
    assert estimate.p_response == pytest.approx(1 / (1 + np.exp(-(0.9 * predicted(trained, rows) - 0.1))), abs=0)
    assert estimate.p_unsubscribe.tolist() == [0, 0.002, 0.002, 0.1, 0.1, 0.004, 0.004]


# --- funnel -------------------------------------------------------------------------------------------------------------------

FUNNEL_COLUMNS = (
    COLUMNS[0],
    COLUMNS[2],
    COLUMNS[3],
    Column(name="message_kind", kind="category", categories=("cart", "news")),
)
WIDTH = 1 + 2 + 1 + 2
"""Of f(x): the constant, two numbers, one that is missing somewhere, two kinds."""


def stage_of(constant: float, **own: float) -> StageWeights:
    """Return a stage with a constant, one of each channel's own on top, and a little of everything else."""
    rows = [[constant, 0.2, -0.1, 0.05, 0.3, -0.3]]
    rows += [[own.get(channel, 0.0), 0.0, 0.1, 0.0, 0.0, 0.0] for channel in CHANNELS]
    return StageWeights(weights=tuple(map(tuple, rows)))


LAG = ChannelLag(log_keep=tuple(-2 - 0.3 * i for i in range(AGE_BINS)), power=0.9, log_hours=(0.1,) * HOUR_BINS)
FUNNEL_DESCRIBED = FunnelDescription(
    columns=FUNNEL_COLUMNS,
    scaling=Scaling(
        means=(0.0, 1.0, 0.0, 0.0), deviations=(1.0, 0.7, 1.0, 1.0), has_missing=(False, False, True, False)
    ),
    rhythm=RhythmTypes(
        shares=(0.7, 0.3),
        weeks=((1.0,) * WEEK, tuple(0.5 + (hour % 24 >= 12) for hour in range(WEEK))),
        own_weight=20.0,
    ),
    lags={"push": LAG, "sms": replace(LAG, power=0.5)},
    delivered={"push": 0.9, "sms": 0.97},
    stages={
        "notice": stage_of(0.1, sms=0.8),
        "click": replace(stage_of(-1.5), relevance=(0.4, 0.0, 0.1, 0.0, -0.1)),
        "order": replace(stage_of(-1.0), relevance=(1.0, *[0.0] * 4), has_trees=True),
        "organic": stage_of(-4.0),
        "unsubscribe": stage_of(-5.0),
    },
    interest_deviation=1.5,
    scale=0.8,
    notes={"unsubscribe": "made up"},
)
FUNNEL_FILES = (FUNNEL, "order.txt")


@pytest.fixture(scope="session")
def order_text() -> str:
    """The trees of the stage order, of a small model on the funnel's columns."""
    rng = np.random.default_rng(11)
    rows = make_rows(rng, 1_000)[:, [0, 2, 3, 3]]
    rows[:, 3] = rng.integers(0, 2, 1_000)
    data = lightgbm.Dataset(rows, label=rng.random(1_000) < 0.3, categorical_feature=[0, 3], free_raw_data=False)
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "seed": 7, "num_threads": 1, "min_data": 5}
    text: str = lightgbm.train(parameters, data, num_boost_round=5).model_to_string()
    return text


ALL_COLUMNS = (*COLUMNS, FUNNEL_COLUMNS[3])


@pytest.fixture(scope="session")
def wide() -> Trained:
    """A model of all columns of a bundle with a funnel, of which the funnel has no time."""
    rng = np.random.default_rng(12)
    rows = np.column_stack([make_rows(rng, 1_000), rng.integers(0, 2, 1_000)]).astype(np.float64)
    data = lightgbm.Dataset(rows, label=rng.random(1_000) < 0.2, categorical_feature=[0, 4], free_raw_data=False)
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "seed": 7, "num_threads": 1, "min_data": 5}
    booster = lightgbm.train(parameters, data, num_boost_round=3)
    return Trained(booster=booster, text=booster.model_to_string(), rows=rows[:50])


def write_funnelled(
    directory: Path, wide: Trained, order_text: str, described: FunnelDescription = FUNNEL_DESCRIBED
) -> str:
    whole = replace(DESCRIBED, columns=ALL_COLUMNS)
    return write_bundle(directory, "spring", whole, wide.text, wide.rows, described, {"order": order_text})


@pytest.fixture
def funnelled(wide: Trained, order_text: str, tmp_path: Path) -> Path:
    """The directory of a bundle with a funnel of two channels whose stage order has trees."""
    directory = tmp_path / "funnel"
    write_funnelled(directory, wide, order_text)
    return directory


def test_funnel_that_was_written_is_loaded(wide: Trained, order_text: str, funnelled: Path) -> None:
    """A funnel is read back as written; its trees are those that serve; writing it again gives the same version."""
    bundle = load_bundle(funnelled)

    assert bundle.description.has_funnel
    assert bundle.funnel is not None
    assert bundle.funnel.description == FUNNEL_DESCRIBED
    assert bundle.tree_count == 5
    assert write_funnelled(funnelled.with_name("again"), wide, order_text) == bundle.version


def test_a_bundle_of_one_model_has_no_funnel(written: Path) -> None:
    """Where no funnel was given, none serves, and there is no file of it."""
    bundle = load_bundle(written)

    assert bundle.funnel is None
    assert not bundle.description.has_funnel
    assert not (written / FUNNEL).exists()


def test_stage_scores_are_linear_part_and_trees(order_text: str, funnelled: Path) -> None:
    """A stage's score is w . f(x) + w_c . f(x), and what its trees add."""
    funnel = load_bundle(funnelled).funnel
    assert funnel is not None
    push, contacts = 1.0, math.e - 1
    rows = np.array([[push, contacts, np.nan, 1.0]])

    linear = 0.1 + 0.2 * (1 - 1) / 0.7 + 0.05 - 0.3

    assert funnel.scores("notice", rows)[0] == pytest.approx(linear)
    assert funnel.scores("order", rows)[0] == pytest.approx(-1.1 + linear + Booster(order_text).raw_scores(rows)[0])


def test_funnel_gives_the_estimate_with_curves(funnelled: Path) -> None:
    """A funnel's estimate has no send first, at the organic chance, then the sends in their order with their curves."""
    bundle = load_bundle(funnelled)

    estimate = bundle.estimate(CONTEXT, ACTIONS, {}, harm_micros=100.0)

    assert estimate.curves is not None
    assert estimate.curves.channel == tuple(action.channel for action in ACTIONS[1:])
    assert estimate.p_response[0] == estimate.curves.p_organic
    assert estimate.p_response[1:] == pytest.approx(estimate.curves.p_organic + estimate.curves.uplift)
    assert np.all(estimate.p_response[1:] > estimate.p_response[0])
    assert estimate.p_unsubscribe[0] == 0
    assert np.all(estimate.p_unsubscribe[1:] > 0)


def funnel_without(*path: str, **changes: object) -> Callable[[Path], None]:
    """Return what changes keys of a part of funnel.json, found by its path; a value of None takes the key away."""

    def change(directory: Path) -> None:
        document = json.loads((directory / FUNNEL).read_text())
        part = document
        for key in path:
            part = part[key]
        part.update({key: value for key, value in changes.items() if value is not None})
        for key in (key for key, value in changes.items() if value is None):
            del part[key]
        (directory / FUNNEL).write_text(json.dumps(document))
        reseal(directory)

    return change


def golden_with(stage: str, scores: list[float] | None) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        golden = json.loads((directory / GOLDEN).read_text())
        golden["stage_scores"].pop(stage)
        if scores is not None:
            golden["stage_scores"][stage] = scores
        (directory / GOLDEN).write_text(json.dumps(golden))
        reseal(directory)

    return change


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        *[
            (damage(file), BundleCorrupt, f"{file}.*fetch or train it again")
            for file in FUNNEL_FILES
            for damage in (remove, flip_a_byte, cut_in_half)
        ],
        (replace_bytes(FUNNEL, b"{", sealed=True), BundleIncompatible, f"{FUNNEL} that this version cannot read"),
        (replace_bytes(FUNNEL, b"\xff", sealed=True), BundleIncompatible, f"{FUNNEL} that this version cannot read"),
        (replace_bytes("order.txt", b"no model", sealed=True), BundleIncompatible, r"LightGBM refuses order\.txt"),
        *[
            (funnel_without(**{key: None}), BundleIncompatible, key)
            for key in ("columns", "scaling", "rhythm", "lags", "delivered", "stages", "interest_deviation", "scale")
        ],
        *[
            (funnel_without("stages", **{stage: None}), BundleIncompatible, f"lacks the stage {stage}")
            for stage in STAGES
        ],
        (funnel_without(scale=-0.1), BundleIncompatible, "scale"),
        (funnel_without(scale=float("inf")), BundleIncompatible, "scale"),
        (funnel_without(interest_deviation=11.0), BundleIncompatible, "interest_deviation"),
        (funnel_without("delivered", push=1.1), BundleIncompatible, r"delivered\.push"),
        (funnel_without("lags", "push", power=float("nan")), BundleIncompatible, r"lags\.push\.power"),
        (funnel_without("lags", "push", log_keep=[0.0] * 12), BundleIncompatible, r"lags\.push\.log_keep"),
        (funnel_without("lags", "push", log_keep=[0.0] * 14), BundleIncompatible, r"lags\.push\.log_keep"),
        (funnel_without("lags", "push", log_hours=[0.0] * 15), BundleIncompatible, r"lags\.push\.log_hours"),
        (funnel_without("rhythm", own_weight=0.0), BundleIncompatible, r"rhythm\.own_weight"),
        (funnel_without("rhythm", shares=[]), BundleIncompatible, r"rhythm\.shares"),
        (funnel_without("rhythm", shares=[1.0]), BundleIncompatible, "1 shares for 2 weeks"),
        (funnel_without("rhythm", weeks=[[1.0] * 24] * 2), BundleIncompatible, r"rhythm\.weeks\.0"),
        (funnel_without("rhythm", weeks=[[0.0] * WEEK] * 2), BundleIncompatible, r"rhythm\.weeks\.0"),
        (funnel_without("scaling", deviations=[1.0, 0.0, 1.0, 1.0]), BundleIncompatible, r"scaling\.deviations\.1"),
        *[
            (funnel_without("scaling", **{key: [1, 1, 1]}), BundleIncompatible, rf"scaling\.{key} has 3 entries for 4")
            for key in ("means", "deviations", "has_missing")
        ],
        (
            funnel_without("stages", "click", weights=[[0.0] * WIDTH]),
            BundleIncompatible,
            r"click\.weights must have 5 rows",
        ),
        (funnel_without("stages", "click", weights=[[0.0] * 3] * 5), BundleIncompatible, r"click\.weights .* of 6"),
        (funnel_without("stages", "click", weights=[[0.0] * 6, [0.0]]), BundleIncompatible, r"click\.weights"),
        (
            funnel_without("stages", "click", relevance=[1.0, 0.0]),
            BundleIncompatible,
            r"click\.relevance has 2 entries",
        ),
        (funnel_without("stages", "click", has_trees=True), BundleCorrupt, r"does not list click\.txt"),
        (
            funnel_without("stages", "notice", weights=[[9.0] * WIDTH] * 5),
            BundleIncompatible,
            "away by the stage notice",
        ),
        (golden_with("organic", None), BundleIncompatible, "golden rows do not fit the stage organic"),
        (golden_with("organic", [0.0] * 50), BundleIncompatible, "golden rows score .* away by the stage organic"),
        (golden_with("organic", [0.0] * 49), BundleIncompatible, "golden rows do not fit the stage organic"),
        (change_keys(GOLDEN, stage_rows=[]), BundleIncompatible, "golden rows do not fit the stage"),
        (change_keys(GOLDEN, stage_rows=[[0.0, 1.0]]), BundleIncompatible, "golden rows do not fit the stage"),
    ],
)
def test_damaged_funnel_is_refused(
    funnelled: Path, damage: Callable[[Path], None], error: type[BundleError], says: str
) -> None:
    """Each mistake in a funnel is refused on load, with an error that names the file and the part of it."""
    damage(funnelled)

    with pytest.raises(error, match=says) as caught:
        load_bundle(funnelled)

    assert type(caught.value) is error
    assert caught.value.source == str(funnelled)


def change_golden(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    golden = json.loads((directory / GOLDEN).read_text())
    change(golden)
    (directory / GOLDEN).write_text(json.dumps(golden))
    reseal(directory)


@pytest.mark.parametrize("field", ["p_response", "p_unsubscribe"])
def test_bundle_that_answers_otherwise_than_in_training_is_refused(funnelled: Path, field: str) -> None:
    """A chance that differs by more than 1e-6 from what was answered in training refuses the bundle, and one that differs by less does not."""

    def move(by: float) -> Callable[[dict[str, Any]], None]:
        def change(golden: dict[str, Any]) -> None:
            golden["answers"][3][field][1] += by

        return change

    change_golden(funnelled, move(0.9e-6))
    load_bundle(funnelled)
    change_golden(funnelled, move(0.2e-6))

    with pytest.raises(BundleIncompatible, match=r"golden question 3 is answered 1\.(0|1)\d*e-06 away"):
        load_bundle(funnelled)


def test_code_that_reads_a_bundle_otherwise_is_noticed(funnelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that come out again are not enough: where what is made of them differs, the bundle is refused."""
    usual = FunnelModel.sketch_each

    def with_another_harm(self: FunnelModel, *values: Any, **named: Any) -> Any:
        return [replace(one, p_unsubscribe=one.p_unsubscribe * 1.01) for one in usual(self, *values, **named)]

    monkeypatch.setattr(FunnelModel, "sketch_each", with_another_harm)

    with pytest.raises(BundleIncompatible, match=r"golden question 0 is answered .* away"):
        load_bundle(funnelled)


def test_questions_that_no_longer_fit_are_told(funnelled: Path) -> None:
    """A question that cannot be answered, or is none, refuses the bundle with its number or the part of it."""
    change_golden(funnelled, lambda golden: golden["answers"][2]["p_response"].pop())
    with pytest.raises(BundleIncompatible, match="golden question 2 cannot be answered"):
        load_bundle(funnelled)

    change_golden(funnelled, lambda golden: golden["answers"][1]["question"].pop("context"))
    with pytest.raises(BundleIncompatible, match=r"answers\.1\.question\.context"):
        load_bundle(funnelled)


def test_bundle_from_before_there_were_questions_still_loads(funnelled: Path) -> None:
    """A bundle without golden answers loads, by its rows alone; one without rows does not, since nothing would be compared."""
    change_golden(funnelled, lambda golden: golden.pop("answers"))
    load_bundle(funnelled)

    change_golden(funnelled, lambda golden: golden.update(rows=[], raw_scores=[]))
    with pytest.raises(BundleIncompatible, match=r"golden rows do not fit response\.txt"):
        load_bundle(funnelled)


def test_questions_cover_what_bundles_look_at(funnelled: Path) -> None:
    """The questions of a bundle ask about every channel, first and later steps, strangers and customers with a past, with and without a half-life."""
    answers = json.loads((funnelled / GOLDEN).read_text())["answers"]
    contexts = [answer["question"]["context"] for answer in answers]

    asked = {action["channel"] for answer in answers for action in answer["question"]["actions"]}

    assert asked == set(CHANNELS)
    assert {context["step"] for context in contexts} == {1, 2}
    assert {bool(context["customer"].get("contacts")) for context in contexts} == {False, True}
    assert {"relevance_half_life_seconds" in context["message"] for context in contexts} == {False, True}
    assert len({tuple(answer["p_response"]) for answer in answers}) == len(answers)


def ticking(*seconds: float) -> Callable[[], float]:
    """Return a clock by which each round takes so long, one after the other."""
    moments: list[float] = []
    for taken in seconds:
        start = moments[-1] if moments else 0.0
        moments += [start, start + taken]
    return iter(moments).__next__


def test_bundle_slower_than_the_limit_is_refused(funnelled: Path) -> None:
    """The fastest of three rounds over the golden rows counts: at the limit a bundle loads, beyond it is refused with both figures."""
    load_bundle(funnelled, TimeLimit(seconds=0.25, timer=ticking(9.0, 0.25, 9.0)))

    with pytest.raises(BundleSlow, match=r"takes 500 ms .* 250 ms are allowed; .*bundle_limit_ms"):
        load_bundle(funnelled, TimeLimit(seconds=0.25, timer=ticking(9.0, 0.75, 0.5)))


def test_trees_of_other_columns_are_refused(trained: Trained, wide: Trained, funnelled: Path) -> None:
    """Trees that were grown on other columns than the funnel's are refused by the name of both files."""
    replace_bytes("order.txt", wide.text.encode(), sealed=True)(funnelled)

    with pytest.raises(BundleIncompatible, match=r"order\.txt has 5 columns, funnel\.json has 4"):
        load_bundle(funnelled)


def test_unknown_keys_of_a_later_funnel_are_passed_over(funnelled: Path) -> None:
    """A funnel with keys that this version does not know is read all the same."""
    funnel_without(colour="green")(funnelled)
    funnel_without("lags", "push", colour="green")(funnelled)

    found = load_bundle(funnelled).funnel

    assert found is not None
    assert found.description == FUNNEL_DESCRIBED


def test_manifest_lists_what_a_bundle_may_have_and_nothing_else(written: Path, funnelled: Path) -> None:
    """Files to fetch are the known ones of the manifest; a manifest that is none lists nothing."""
    plain, funnel = ((folder / MANIFEST).read_bytes() for folder in (written, funnelled))
    strange = json.dumps({"format": 1, "name": "x", "files": {"../evil": "0", GOLDEN: "0"}}).encode()

    assert listed_files(plain) == (DESCRIPTION, RESPONSE, GOLDEN)
    assert listed_files(funnel) == (DESCRIPTION, RESPONSE, GOLDEN, *FUNNEL_FILES)
    assert listed_files(strange) == (GOLDEN,)
    assert listed_files(b"{") == ()


@given(raw=st.floats(-1e308, 1e308), slope=st.floats(-1e308, 1e308), intercept=st.floats(-1e308, 1e308))
def test_calibration_of_any_score_is_a_probability(raw: float, slope: float, intercept: float) -> None:
    """However extreme the score, its calibration is a probability and no numerical fault."""
    scripted = bundle_of({})
    description = replace(scripted.description, calibration_slope=slope, calibration_intercept=intercept)
    bundle = type(scripted)("b", "b-1", description, scripted._booster)

    chance = bundle.calibrate(np.array([raw]))[0]

    assert 0 <= chance <= 1


@given(one=st.floats(-50, 50), other=st.floats(-50, 50))
def test_calibration_keeps_the_order_of_scores(one: float, other: float) -> None:
    """A greater score never has a smaller probability under a positive slope."""
    low, high = bundle_of({}).calibrate(np.array([min(one, other), max(one, other)]))

    assert low <= high
