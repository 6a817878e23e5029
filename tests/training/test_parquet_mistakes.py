"""Mistakes in Parquet logs: each is told with its file, row, column and what to write instead, many at once, and nothing is written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.examples import DAY, HOUR, NOW
from tests.training.parquet_log import TYPES, Row, command, decision, outcome, write_file, write_log
from training.__main__ import main

Log = tuple[list[Row], list[Row]]


def valid() -> Log:
    """A log of six rows without mistakes, with every column that a case below breaks."""
    decisions = [
        decision(f"r{number}", NOW + number * HOUR, x_age=30.0, x_club="gold", category="marketing", price=0.0, step=1)
        for number in range(6)
    ]
    return decisions, [outcome("seen", f"r{number}", NOW + 7 * HOUR, value=None) for number in range(6)]


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Import a folder that is to be refused; return what was said."""
    url = f"sqlite:///{folder / 'log.db'}"
    before = sorted(folder.rglob("*"))
    for more in ([], ["--check"]):
        assert main(command(folder, url, *more)) == 2
    assert sorted(folder.rglob("*")) == before
    said = capsys.readouterr()
    first, second = said.err[: len(said.err) // 2], said.err[len(said.err) // 2 :]
    assert first == second
    assert said.out == ""
    return first


def test_valid_log_is_accepted(tmp_path: Path) -> None:
    """What the cases below start from is accepted."""
    write_log(tmp_path, *valid())

    assert main(command(tmp_path, "sqlite:///unused.db", "--check")) == 0


DECISION_CASES: dict[str, tuple[dict[str, object], str]] = {
    "propensity zero": (
        {"propensity": 0.0},
        "row 3, propensity: is 0.0; write a number that is more than 0 and at most 1",
    ),
    "propensity above one": ({"propensity": 1.5}, "row 3, propensity: is 1.5; write a number that is more than 0"),
    "propensity nan": ({"propensity": float("nan")}, "row 3, propensity: is nan; write a number"),
    "propensity null": ({"propensity": None}, "row 3, propensity: is null; it is required"),
    "unknown channel": (
        {"channel": "fax"},
        "row 3, channel: is 'fax'; no channel of the rules, which have email, push, sms",
    ),
    "unknown eligible": (
        {"eligible": ["push", "fax"]},
        "row 3, eligible: is ['push', 'fax']; has no channel of the rules",
    ),
    "eligible twice": ({"eligible": ["push", "push"]}, "row 3, eligible: is ['push', 'push']; names a channel twice"),
    "not eligible": ({"eligible": ["sms"]}, "row 3, channel: is 'push'; not among the row's eligible channels"),
    "send without time": ({"send_time": None}, "row 3, send_time: is null though channel is a send"),
    "no send with time": ({"channel": "none"}, "row 3, send_time: is given though channel is none; write null"),
    "no send with price": (
        {"channel": "none", "send_time": None, "price": 5.0},
        "row 3, price: is above 0 though channel",
    ),
    "sent before decided": ({"send_time": NOW}, "row 3, send_time: is '2026-11-04 09:00:00 UTC'; before decide_time"),
    "sent far later": (
        {"send_time": NOW + 200 * DAY},
        "row 3, send_time: is '2027-05-23 09:00:00 UTC'; more than 120 days",
    ),
    "margin negative": ({"order_margin": -1.0}, "row 3, order_margin: is -1.0; write a number that is at least 0"),
    "margin infinite": ({"order_margin": float("inf")}, "row 3, order_margin: is inf; write a number"),
    "price negative": ({"price": -0.01}, "row 3, price: is -0.01; write a number that is at least 0"),
    "feature nan": ({"x_age": float("nan")}, "row 3, x_age: is nan; write a number, or null where it is not known"),
    "feature empty": ({"x_club": ""}, "row 3, x_club: is ''; write 1 to 128 characters, or null where it is not known"),
    "feature long": ({"x_club": "g" * 129}, "row 3, x_club: is 'ggg"),
    "past": ({"decide_time": datetime(1970, 1, 18, tzinfo=UTC)}, "row 3, decide_time: is 1468800000000; us since 1970"),
    "future": (
        {"decide_time": datetime(2262, 1, 1, tzinfo=UTC)},
        "row 3, decide_time: is 9214646400000000; us since 1970",
    ),
    "category": ({"category": "promo"}, "row 3, category: is 'promo'; write one of marketing, service, transactional"),
    "request_id null": ({"request_id": None}, "row 3, request_id: is null; it is required"),
    "request_id empty": ({"request_id": ""}, "row 3, request_id: is ''; write id of the request, it is required"),
    "request_id long": ({"request_id": "r" * 129}, "at most 128 characters are allowed"),
    "customer null": ({"customer_id": None}, "row 3, customer_id: is null; it is required"),
    "step zero": ({"step": 0}, "row 3, step: is 0; write an integer that is at least 1"),
    "twice": (
        {"request_id": "r1"},
        "row 3, request_id: and step are there before; give each step of each decision ids",
    ),
}


@pytest.mark.parametrize("case", DECISION_CASES)
def test_decision_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One wrong value of one decision is told with its row and what to write."""
    changes, said = DECISION_CASES[case]
    decisions, outcomes = valid()
    decisions[3].update(changes)
    write_log(tmp_path, decisions, [o for o in outcomes if o["request_id"] != "r3"])

    assert said in told(tmp_path, capsys)


COLUMN_CASES: dict[str, tuple[dict[str, object], str]] = {
    "time zone": ({"time_zone": "Mars/Olympus"}, "row 3, time_zone: is 'Mars/Olympus'; write an IANA zone"),
    "country": ({"country": "ru"}, "row 3, country: is 'ru'; write an ISO 3166-1 alpha-2 code"),
    "half life": (
        {"relevance_half_life_hours": 0.0},
        "row 3, relevance_half_life_hours: is 0.0; write a number that is more",
    ),
    "expire first": (
        {"earliest_time": NOW + DAY, "expire_time": NOW + HOUR},
        "row 3, expire_time: is '2026-11-04 10:00:00 UTC'; not after earliest_time",
    ),
    "prices": ({"prices": [("sms", -1.0)]}, "row 3, prices: is [('sms', -1.0)]; write a number that is at least 0"),
    "prices of unknown": ({"prices": [("fax", 1.0)]}, "row 3, prices: is [('fax', 1.0)]; has no channel of the rules"),
    "misspelt": ({"time_zon": "UTC"}, "decisions.parquet, column time_zon: is unknown; did you mean time_zone?"),
    "not foreseen": ({"colour": "red"}, "column colour: is unknown; remove it, or name it x_colour if it is a feature"),
    "feature name": ({"x_Größe": 1.0}, "column x_Größe: names of features are 1 to 64 of a-z, 0-9, _ and .; rename it"),
    "feature list": (
        {"x_list": [1.0]},
        "column x_list: has type list<element: double>; a feature is a number, a string or a bool",
    ),
}


@pytest.mark.parametrize("case", COLUMN_CASES)
def test_optional_column_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is a wrong value of an optional column, and a column that there is not."""
    changes, said = COLUMN_CASES[case]
    decisions, outcomes = valid()
    decisions[3].update(changes)
    write_log(tmp_path, decisions, outcomes)

    assert said in told(tmp_path, capsys)


@pytest.mark.parametrize("name", [f for f in decision("a") if f != "send_time"])
def test_missing_column_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a required column is refused by the column's name, with its meaning and type."""
    decisions, outcomes = valid()
    write_log(tmp_path, [{k: v for k, v in row.items() if k != name} for row in decisions], outcomes)

    assert f"decisions.parquet, column {name}: is missing; add it: " in told(tmp_path, capsys)


WRONG_TYPES: dict[str, tuple[str, pa.DataType, Callable[[Row], object], str]] = {
    "time without zone": (
        "decide_time",
        pa.timestamp("us"),
        lambda row: NOW.replace(tzinfo=None),
        "has type timestamp[us]; the times are without a zone; write timestamp with a time zone",
    ),
    "time as text": (
        "decide_time",
        pa.string(),
        lambda row: "2026-11-04",
        "has type string; write timestamp with a time zone",
    ),
    "propensity as text": (
        "propensity",
        pa.string(),
        lambda row: "0.5",
        "has type string; write double or another number",
    ),
    "eligible as text": ("eligible", pa.string(), lambda row: "push", "has type string; write list<string>"),
    "campaign as number": ("campaign", pa.int64(), lambda row: 7, "has type int64; write string"),
    "margin as bool": ("order_margin", pa.bool_(), lambda row: True, "has type bool; write decimal, double or integer"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_type_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column of a type that it cannot be is refused with the type that it should have."""
    name, kind, value, said = WRONG_TYPES[case]
    decisions, outcomes = valid()
    write_log(tmp_path, decisions, outcomes)
    changed = [{**row, name: value(row)} for row in decisions]
    write_file(tmp_path / "decisions.parquet", changed, {**TYPES, name: kind})

    assert f"decisions.parquet, column {name}: {said}" in told(tmp_path, capsys)


OUTCOME_CASES: dict[str, tuple[dict[str, object], str]] = {
    "unknown decision": (
        {"request_id": "r77"},
        "row 2, request_id: is 'r77'; no decision of decisions.parquet has this request_id",
    ),
    "no decision_id": (
        {"decision_id": "d1"},
        "row 2, decision_id: is 'd1'; no decision of decisions.parquet has this decision_id",
    ),
    "unknown step": ({"step": 2}, "row 2, step: is 2; the decision has no such step"),
    "unknown type": ({"type": "bought"}, "row 2, type: is 'bought'; write one of sent, not_sent, delivered"),
    "nobody": ({"request_id": None}, "row 2, customer_id: is null, and so are decision_id and request_id"),
    "other customer": ({"customer_id": "boris"}, "row 2, customer_id: is 'boris'; is not the customer of the decision"),
    "value": ({"value": -5.0}, "row 2, value: is -5.0; write a number that is at least 0"),
    "time": (
        {"occur_time": datetime(1999, 12, 31, tzinfo=UTC)},
        "row 2, occur_time: is 946598400000000; us since 1970",
    ),
    "csat": ({"csat": 6}, "row 2, csat: is 6; write an integer that is at least 1 and at most 5"),
}


@pytest.mark.parametrize("case", OUTCOME_CASES)
def test_outcome_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One wrong outcome is told with its row and what to write."""
    changes, said = OUTCOME_CASES[case]
    decisions, outcomes = valid()
    outcomes[2].update(changes)
    write_log(tmp_path, decisions, outcomes)

    assert f"outcomes.parquet {said}" in told(tmp_path, capsys)


def test_events_are_not_there_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An event_id that comes again is told with its row."""
    decisions, outcomes = valid()
    write_log(tmp_path, decisions, [{**row, "event_id": f"e{number % 5}"} for number, row in enumerate(outcomes)])

    assert "outcomes.parquet row 5, event_id: is there before" in told(tmp_path, capsys)


def test_a_cascade_is_one_customers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of one decision_id that belong to two customers are refused."""
    decisions = [
        decision("a", decision_id="c", step=1),
        decision("b", NOW + HOUR, decision_id="c", step=2, customer_id="boris"),
    ]
    write_log(tmp_path, decisions)

    assert "decisions.parquet row 1, decision_id: is of another customer in another row" in told(tmp_path, capsys)


def test_paid_sends_need_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A send through a paid channel on a day before the price book begins needs a price of its own."""
    moment = datetime(2024, 5, 5, tzinfo=UTC)
    write_log(
        tmp_path,
        [decision("a", moment, "sms"), decision("b", moment, "sms", price=3.0)],
        [outcome("seen", "a", moment + HOUR)],
    )

    said = told(tmp_path, capsys)

    assert "decisions.parquet row 0, price: is 'sms'; has no price in the rules' price book" in said
    assert "row 1" not in said


def test_mistakes_of_all_files_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Different mistakes in three files come in one refusal."""
    decisions, outcomes = valid()
    decisions[0]["propensity"], decisions[1]["channel"], outcomes[2]["type"] = 2.0, "fax", "bought"
    write_log(tmp_path, decisions, outcomes, [{"customer_id": "", "occur_time": NOW}])

    said = told(tmp_path, capsys)

    for part in (
        "decisions.parquet row 0",
        "decisions.parquet row 1",
        "outcomes.parquet row 2",
        "activity.parquet row 0",
    ):
        assert part in said
    assert said.startswith(f"{tmp_path} refused, nothing was written; rows are counted from 0:\n  ")


def test_many_mistakes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one kind three are told and the others counted; of all kinds 20 are told."""
    decisions, outcomes = valid()
    many = [
        {**decisions[0], "request_id": f"r{number}", "propensity": 0.0, "x_age": float("inf")} for number in range(500)
    ]
    write_log(tmp_path, many, outcomes)

    said = told(tmp_path, capsys)

    assert [line for line in said.splitlines() if "propensity" in line][-1].endswith("(497 more rows like it)")
    assert "row 2, propensity" in said
    assert "row 3, propensity" not in said
    assert said.splitlines()[-1] == "  1000 mistakes in all"

    write_log(tmp_path, [{**row, **{f"unknown{n}": 1 for n in range(40)}} for row in valid()[0]], outcomes)
    lines = told(tmp_path, capsys).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  40 mistakes in all"


def test_rows_are_those_of_the_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a log of parts, the part is named and its rows are counted from its own beginning; ids are compared through all parts."""
    decisions, outcomes = valid()
    write_log(tmp_path, decisions, outcomes)
    (tmp_path / "decisions.parquet").unlink()
    broken = [{**decisions[4], "propensity": 7.0}, decisions[5], decisions[0]]
    write_file(tmp_path / "decisions.parquet" / "part-0.parquet", decisions[:4])
    write_file(tmp_path / "decisions.parquet" / "part-1.parquet", broken)

    said = told(tmp_path, capsys)

    assert "decisions.parquet/part-1.parquet row 0, propensity: is 7.0" in said
    assert "decisions.parquet/part-1.parquet row 2, request_id: and step are there before" in said


def test_parts_of_different_types_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A feature that is a number in one part and text in the next is refused; one that a part lacks is not."""
    decisions, outcomes = valid()
    write_log(tmp_path, decisions, outcomes)
    (tmp_path / "decisions.parquet").unlink()
    write_file(tmp_path / "decisions.parquet" / "a.parquet", decisions[:3])
    write_file(
        tmp_path / "decisions.parquet" / "b.parquet", [{**row, "x_age": "old", "x_new": 1.0} for row in decisions[3:]]
    )

    said = told(tmp_path, capsys)

    assert "decisions.parquet/b.parquet, column x_age: is string here and double in a part before" in said
    assert "x_new" not in said


@pytest.mark.parametrize("broken", ["absent", "text", "cut"])
@pytest.mark.parametrize("file", ["decisions.parquet", "outcomes.parquet"])
def test_files_that_cannot_be_read_are_refused(
    file: str, broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing, is not Parquet or was cut off is refused by its name."""
    path = write_log(tmp_path, *valid()) / file
    whole = path.read_bytes()
    path.unlink()
    if broken != "absent":
        path.write_bytes(b"not Parquet at all" if broken == "text" else whole[: len(whole) // 2])

    said = told(tmp_path, capsys)

    assert str(path) in said
    assert ("there is no" if broken == "absent" else "is not a Parquet file that can be read") in said


def test_empty_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of decisions without a row is nothing to import."""
    write_log(tmp_path, *valid())
    names = {name: TYPES.get(name, pa.string()) for name in decision("a")}
    table = pa.table({name: pa.array([], kind) for name, kind in names.items()})
    pq.write_table(table, tmp_path / "decisions.parquet")

    assert "decisions.parquet has no rows; there is nothing to import" in told(tmp_path, capsys)


def test_rules_belong_to_parquet_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other logs have rules of their own, and say so."""
    write_log(tmp_path, *valid())

    arguments = ["import", "--log", "hillstrom", "--data", str(tmp_path), "--rules", str(tmp_path / "rules.toml")]

    assert main(arguments) == 2
    assert "--rules belongs to --log parquet" in capsys.readouterr().err


def test_dates_of_a_log_may_be_old(tmp_path: Path) -> None:
    """A log of 2008 is as good as one of today."""
    moment = datetime(2008, 3, 20, tzinfo=UTC)
    write_log(tmp_path, [decision("a", moment)], [outcome("seen", "a", moment + timedelta(hours=1))])

    assert main(command(tmp_path, "sqlite:///unused.db", "--check")) == 0
