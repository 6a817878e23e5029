"""Scoring by tables gives what LightGBM gives, to the bit, or LightGBM itself scores."""

from collections.abc import Mapping
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import booster as boosters
from models import walk as walks
from models.booster import Booster, FloatArray
from models.walk import Unsupported, Walk

COLUMNS = 7
NOT_BUILT = "models/libwalk.so is not there: run `make models/libwalk.so`, which needs a C compiler"
CATEGORY, WIDE_CATEGORY = 0, 1
ODD = [float("nan"), 0.0, -0.0, 1e-36, -1e-36, 1e-30, -1.0, 2.5, 31.0, 63.0, 1e300, -1e300, float("inf"), float("-inf")]


def drawn(seed: int, count: int) -> FloatArray:
    """Return rows with missing values, zeros, two columns of categories and one that says nothing."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, COLUMNS))
    rows[:, CATEGORY] = random.integers(0, 6, count)
    rows[:, WIDE_CATEGORY] = random.integers(0, 90, count)
    rows[:, -1] = 1.0
    rows[random.random(rows.shape) < 0.15] = np.nan
    rows[random.random(rows.shape) < 0.15] = 0.0
    return rows


def grown(parameters: Mapping[str, Any], trees: int = 20) -> str:
    """Return the text of a model."""
    rows = drawn(0, 2000)
    random = np.random.default_rng(1)
    known = np.nan_to_num(rows)
    target = (
        known[:, 2] * (known[:, CATEGORY] > 2)
        + np.isnan(rows[:, 3])
        + known[:, WIDE_CATEGORY] % 7 / 4
        + random.normal(size=2000)
    )
    options = {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    data = lgb.Dataset(rows, label=target, categorical_feature=[CATEGORY, WIDE_CATEGORY], params={"verbosity": -1})
    return str(lgb.train({**options, **parameters}, data, num_boost_round=trees).model_to_string())


MODELS = {
    "missing values": grown({}),
    "zeros as missing": grown({"zero_as_missing": True}),
    "no missing values": grown({"use_missing": False}),
    "small trees": grown({"num_leaves": 2}),
    "one leaf": grown({"min_data_in_leaf": 1500}),
    "33 leaves": grown({"num_leaves": 33}),
    "64 leaves": grown({"num_leaves": 64}),
    "many categories": grown({"max_cat_to_onehot": 1, "cat_smooth": 1, "min_data_per_group": 1}),
}
REFUSED = {
    "65 leaves": grown({"num_leaves": 65}),
    "linear leaves": grown({"linear_tree": True}),
    "averaged trees": grown({"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}),
}


@pytest.mark.parametrize("name", [*MODELS, *REFUSED])
def test_scores_are_lightgbms_to_the_bit(name: str) -> None:
    """Ordinary rows get the bits that LightGBM gives, whatever the trees are like."""
    booster = Booster((MODELS | REFUSED)[name])
    rows = drawn(2, 500)

    assert name in REFUSED or booster.why_slow in ("", NOT_BUILT)
    assert booster.raw_scores(rows).tobytes() == booster.by_lightgbm(rows).tobytes()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 41])
def test_rows_that_share_most_columns_score_as_if_alone(name: str, count: int) -> None:
    """What rows have in common does not change what each of them gets."""
    booster = Booster(MODELS[name])
    rows = np.repeat(drawn(3, 1), count, axis=0)
    rows[:, [CATEGORY, 2]] = drawn(4, count)[:, [CATEGORY, 2]]

    alone = np.concatenate([booster.by_lightgbm(rows[i : i + 1]) for i in range(count)])

    assert booster.raw_scores(rows).tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seldom", [[], [CATEGORY], [CATEGORY, 3], [CATEGORY, WIDE_CATEGORY, 2, 3, 4, 5]])
def test_rows_of_which_some_columns_change_seldom_score_as_if_alone(name: str, seldom: list[int]) -> None:
    """Columns that stay as they are for a stretch of rows, as those of a channel do, change nothing, nor does that others change all the time."""
    booster = Booster(MODELS[name])
    rows = np.repeat(drawn(5, 1), 41, axis=0)
    rows[:, 4] = drawn(6, 41)[:, 4]
    rows[:, seldom] = np.repeat(drawn(7, 5), [3, 11, 1, 20, 6], axis=0)[:, seldom]

    alone = np.concatenate([booster.by_lightgbm(rows[i : i + 1]) for i in range(41)])

    assert booster.why_slow in ("", NOT_BUILT)
    assert booster.raw_scores(rows).tobytes() == alone.tobytes()


@given(
    name=st.sampled_from(sorted(MODELS)),
    values=st.lists(
        st.lists(st.sampled_from(ODD) | st.floats(), min_size=COLUMNS, max_size=COLUMNS), min_size=1, max_size=6
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_value_is_scored_otherwise(name: str, values: list[list[float]]) -> None:
    """Missing, tiny, huge and infinite values and categories that no one has seen get what LightGBM gives them."""
    booster = Booster(MODELS[name])
    rows = np.array(values)

    assert booster.raw_scores(rows).tobytes() == booster.by_lightgbm(rows).tobytes()


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_the_tables_cannot_hold_is_refused(name: str) -> None:
    """Trees of more than 64 leaves, with linear leaves or averaged, are LightGBM's."""
    with pytest.raises(Unsupported):
        Walk(REFUSED[name])

    assert Booster(REFUSED[name]).why_slow


def test_tables_that_differ_by_one_bit_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tables give anything else on the rows that try them, LightGBM scores, and the booster says why."""

    class Wrong(Walk):
        def raw_scores(self, rows: FloatArray) -> FloatArray:
            return np.nextafter(super().raw_scores(rows), np.inf)

    monkeypatch.setattr(boosters, "Walk", Wrong)
    booster = Booster(MODELS["missing values"])
    rows = drawn(5, 50)

    assert booster.why_slow
    assert booster.raw_scores(rows).tobytes() == booster.by_lightgbm(rows).tobytes()


def test_without_the_compiled_code_lightgbm_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a C compiler serves the same scores, and the booster says what is missing."""
    monkeypatch.setattr(walks, "_library", lambda: None)
    booster = Booster(MODELS["missing values"])
    rows = drawn(6, 50)

    assert "C compiler" in booster.why_slow
    assert booster.raw_scores(rows).tobytes() == booster.by_lightgbm(rows).tobytes()


def test_tables_larger_than_their_limit_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is not given more memory than the limit says."""
    monkeypatch.setattr(walks, "MOST_BYTES", 1000)

    assert Booster(MODELS["missing values"]).why_slow
