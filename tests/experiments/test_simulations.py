"""The claims of docs/experiments.md in small: fixed seeds, and bounds that a method at its nominal error breaks once in two thousand times."""

from pathlib import Path

import pytest
from scipy.stats import binom

from training.experiments.ruling import Verdict
from training.experiments.simulations import (
    ALPHA,
    CASES,
    POWER,
    NoPlace,
    Setting,
    find_once,
    look_daily,
    main,
    plan,
    rule_daily,
    write_between,
)
from training.experiments.worlds import CLICKS, REVENUE

_UNLIKELY = 0.0005


def _most(worlds: int, chance: float) -> int:
    return int(binom.isf(_UNLIKELY, worlds, chance))


def _least(worlds: int, chance: float) -> int:
    return int(binom.ppf(_UNLIKELY, worlds, chance))


@pytest.mark.parametrize(
    "setting",
    [Setting(metric=REVENUE, customers=3000), Setting(metric=CLICKS, customers=3000, is_adjusted=True)],
    ids=lambda setting: setting.name,
)
def test_looking_daily_finds_nothing_where_there_is_nothing(setting: Setting) -> None:
    """In A/A experiments the t-test errs at alpha at one look and far oftener at 28; the always-valid interval at most at alpha at 28."""
    worlds = 100
    found = [look_daily(setting, seed) for seed in range(worlds)]
    assert _least(worlds, ALPHA) <= sum(look.is_fixed_wrong for look in found) <= _most(worlds, ALPHA)
    assert sum(look.is_peeked_wrong for look in found) > _most(worlds, ALPHA)
    assert sum(look.is_always_wrong for look in found) <= _most(worlds, ALPHA)


def test_intervals_hold_a_true_lift_at_every_look() -> None:
    """With a true lift of 30 % the t-interval misses it at about alpha at the last look, the always-valid ones at most at alpha at any."""
    worlds = 100
    found = [look_daily(Setting(metric=CLICKS, customers=3000, lift=0.3), seed) for seed in range(worlds)]
    assert sum(look.is_fixed_wrong for look in found) <= _most(worlds, ALPHA)
    assert sum(look.is_always_wrong for look in found) <= _most(worlds, ALPHA)
    assert sum(look.is_lift_wrong for look in found) <= _most(worlds, ALPHA)
    assert sum(look.is_found for look in found) == worlds


def test_the_planners_customers_find_the_effect() -> None:
    """Experiments of the planner's size find their effect as often as planned, by the t-test and by the always-valid interval."""
    worlds = 400
    once = plan(Setting(metric=CLICKS, customers=0, lift=0.1), is_daily=False)
    found = sum(find_once(once, seed) for seed in range(worlds))
    assert _least(worlds, POWER) <= found <= _most(worlds, POWER)
    worlds = 60
    daily = plan(Setting(metric=CLICKS, customers=0, lift=0.1), is_daily=True)
    last = sum(look_daily(daily, seed).is_found_last for seed in range(worlds))
    assert _least(worlds, POWER) <= last <= _most(worlds, POWER)


def test_rulings_at_every_look_ship_what_is_good_alone() -> None:
    """Over 28 looks nothing is shipped where nothing differs, or where a guardrail is as bad as its margin; what improves is."""
    worlds = 10
    nothing, good, guarded, broken, harmful = ([rule_daily(case, seed) for seed in range(worlds)] for case in CASES)
    assert sum(Verdict.SHIP in days for days in nothing) <= _most(worlds, ALPHA)
    assert sum(Verdict.HARMFUL in days for days in nothing) <= _most(worlds, ALPHA)
    assert sum(Verdict.SHIP in days for days in guarded) <= _most(worlds, ALPHA)
    assert sum(Verdict.SHIP in days for days in good) > worlds / 2
    assert sum(Verdict.HARMFUL in days for days in broken) > worlds / 2
    assert sum(Verdict.HARMFUL in days for days in harmful) > worlds / 2


def test_tables_go_between_their_comments(tmp_path: Path) -> None:
    """A table replaces what was between its comments, and a document without them is refused."""
    document = tmp_path / "experiments.md"
    document.write_text(
        "a\n<!-- simulations power: begin -->\nold\n<!-- simulations power: end -->\nb\n", encoding="utf-8"
    )
    write_between(document, "power", "new")
    assert document.read_text(encoding="utf-8") == (
        "a\n<!-- simulations power: begin -->\n\nnew\n\n<!-- simulations power: end -->\nb\n"
    )
    with pytest.raises(NoPlace, match="simulations errors: begin"):
        write_between(document, "errors", "new")


def test_a_table_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown table ends the command with the names that there are."""
    assert main(["--tables", "luck"]) == 2
    assert "there is no table 'luck'; there are errors, power, rulings, shares" in capsys.readouterr().err
