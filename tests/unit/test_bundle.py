"""Bundles: written, verified, loaded and scored as LightGBM itself scores."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

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
    GOLDEN,
    MANIFEST,
    RESPONSE,
    STAGES,
    Calibration,
    Description,
    Funnel,
    listed_files,
    load_bundle,
    write_bundle,
)
from models.errors import BundleCorrupt, BundleError, BundleIncompatible, BundleMissing
from models.features import NO_SEND, Action, Column
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
    is_send = np.array([action.send_time is not None for action in ACTIONS])
    assert bundle.score_rows(rows, is_send).tobytes() == estimate.p_response.tobytes()


# --- funnel -------------------------------------------------------------------------------------------------------------------

FUNNEL = Funnel(
    engage=Calibration(slope=1.0, intercept=0.2),
    engaged_order=Calibration(slope=0.8, intercept=1.0),
    organic=Calibration(slope=1.1, intercept=-1.0),
    scale=0.7,
    engagement="clicked",
)


@pytest.fixture
def funnelled(trained: Trained, tmp_path: Path) -> Path:
    """The directory of a bundle with a funnel, whose stages are one model read in three ways."""
    directory = tmp_path / "funnel"
    texts = dict.fromkeys(STAGES, trained.text)
    write_bundle(directory, "spring", replace(DESCRIBED, funnel=FUNNEL), trained.text, trained.rows, texts)
    return directory


def test_funnel_multiplies_its_stages(trained: Trained, funnelled: Path) -> None:
    """A send adds to the organic chance what engaging adds, as often as one engages; no send adds nothing."""
    bundle = load_bundle(funnelled)
    is_send = trained.rows[:, 0] > 0

    found = bundle.score_rows(trained.rows, is_send)

    raw = predicted(trained, trained.rows)
    engage, order, organic = (
        1 / (1 + np.exp(-(c.slope * raw + c.intercept))) for c in (FUNNEL.engage, FUNNEL.engaged_order, FUNNEL.organic)
    )
    assert found[~is_send] == pytest.approx(organic[~is_send])
    assert found[is_send] == pytest.approx((organic + 0.7 * engage * np.maximum(order - organic, 0))[is_send])
    assert bundle.tree_count == 60


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (remove, BundleCorrupt),
        (flip_a_byte, BundleCorrupt),
        (lambda file: replace_bytes(file, b"no model", sealed=True), BundleIncompatible),
    ],
)
def test_damaged_stage_is_refused_by_its_name(
    funnelled: Path, stage: str, damage: Callable[[str], Callable[[Path], None]], error: type[BundleError]
) -> None:
    """Every model of a funnel is verified as the one model is."""
    damage(f"{stage}.txt")(funnelled)

    with pytest.raises(error, match=f"{stage}.txt"):
        load_bundle(funnelled)


def test_stage_that_scores_otherwise_than_in_training_is_refused(funnelled: Path) -> None:
    """The golden rows are scored by every stage."""
    golden = json.loads((funnelled / GOLDEN).read_text())
    golden["stage_raw_scores"]["organic"][0] += 1
    (funnelled / GOLDEN).write_text(json.dumps(golden))
    reseal(funnelled)

    with pytest.raises(BundleIncompatible, match=r"golden rows score 1 away by organic.txt"):
        load_bundle(funnelled)


def test_manifest_lists_what_a_bundle_may_have_and_nothing_else(written: Path, funnelled: Path) -> None:
    """Files to fetch are the known ones of the manifest; a manifest that is none lists nothing."""
    plain, funnel = ((folder / MANIFEST).read_bytes() for folder in (written, funnelled))
    strange = json.dumps({"format": 1, "name": "x", "files": {"../evil": "0", GOLDEN: "0"}}).encode()

    assert listed_files(plain) == (DESCRIPTION, RESPONSE, GOLDEN)
    assert listed_files(funnel) == (DESCRIPTION, RESPONSE, GOLDEN, *(f"{stage}.txt" for stage in STAGES))
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
