"""Outside logs as decision logs: propensities, actions, history and outcomes, of small files and of the real ones."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from models.errors import LogUnusable
from models.features import NO_SEND, feature_values
from models.record import to_micros
from models.rules import read_rules
from tests.training.examples import DAY, HOUR, KEY, run_sql
from tests.training.outside import (
    BUNDLES,
    EVENTS,
    HILLSTROM,
    HOURS,
    SCHEMA,
    SEGMENTS,
    lead_of,
    make_hillstrom,
    make_starbucks,
    write_hillstrom,
)
from training.__main__ import main
from training.dataset import read_dataset
from training.fit import fit
from training.grow import Hyperparameters
from training.journal import LoggedDecision
from training.logs import hillstrom, starbucks

CUSTOMERS = 400
WAVES = len(HOURS)


def ignore(_count: int) -> None:
    """Take no note of progress."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both logs, small."""
    place = tmp_path_factory.mktemp("outside")
    make_starbucks(CUSTOMERS).write(place)
    return write_hillstrom(place, make_hillstrom(600))


@pytest.fixture(scope="module")
def waves(folder: Path) -> list[starbucks.Wave]:
    return starbucks.read_waves(folder)


@pytest.fixture(scope="module")
def decisions(waves: list[starbucks.Wave]) -> list[LoggedDecision]:
    return list(starbucks.logged_decisions(waves, KEY, ignore))


def test_waves_hold_every_customer(waves: list[starbucks.Wave]) -> None:
    """Each wave has all customers, at its hour after the log's start."""
    assert [wave.hour for wave in waves] == list(HOURS)
    assert [len(wave) for wave in waves] == [CUSTOMERS] * WAVES
    assert waves[1].time - waves[0].time == 7 * DAY


def test_lead_is_the_channel_of_widest_reach(waves: list[starbucks.Wave]) -> None:
    """Whatever else is in a bundle, its lead is social, else mobile, else base; nothing sent is none."""
    expected = [row["action"] for row in make_starbucks(CUSTOMERS).decisions]

    found = [str(lead) for wave in waves for lead in wave.lead]

    assert found == [lead_of(action) for action in expected]
    assert [bool(x) for wave in waves for x in wave.is_everything] == [action == "everything" for action in expected]


def test_propensities_are_the_shares_of_their_wave(waves: list[starbucks.Wave]) -> None:
    """P(lead) is the lead's share among the decisions of its own wave, and so is P(everything)."""
    for wave in waves:
        counts = Counter(wave.lead.tolist())
        assert wave.propensity_lead.tolist() == [counts[lead] / CUSTOMERS for lead in wave.lead.tolist()]
        assert set(wave.propensity_everything.tolist()) == {float(wave.is_everything.mean())}
    assert len({float(wave.propensity_everything[0]) for wave in waves}) > 1


def test_base_is_split_evenly_between_web_and_email(
    waves: list[starbucks.Wave], decisions: list[LoggedDecision]
) -> None:
    """Decisions of the base bundle are half web and half e-mail, each at half of the bundle's propensity; all others are as they are."""
    pairs = list(zip(decisions, [(w, i) for w in waves for i in range(len(w))], strict=True))

    channels: Counter[str] = Counter()
    for logged, (wave, row) in pairs:
        lead, propensity = str(wave.lead[row]), float(wave.propensity_lead[row])
        if lead == "base":
            channels[logged.action.channel] += 1
            assert logged.propensity == propensity / 2
        else:
            assert (logged.action.channel, logged.propensity) == (lead, propensity)

    assert set(channels) == {"web", "email"}
    assert stats.binomtest(channels["web"], channels.total()).pvalue > 1e-4


def test_split_of_base_does_not_change(waves: list[starbucks.Wave], decisions: list[LoggedDecision]) -> None:
    """Which of the two stands for a decision follows from the decision, so that an import can be repeated."""
    assert [d.action for d in starbucks.logged_decisions(waves, KEY, ignore)] == [d.action for d in decisions]


def test_propensities_of_a_decision_sum_to_one(waves: list[starbucks.Wave]) -> None:
    """Over no send and the four channels, with base halved, the probabilities of each wave sum to one."""
    for wave in waves:
        by_lead = dict(zip(wave.lead.tolist(), wave.propensity_lead.tolist(), strict=True))
        channels = {"web": by_lead["base"] / 2, "email": by_lead["base"] / 2}
        channels |= {lead: by_lead[lead] for lead in ("mobile", "social", NO_SEND)}
        assert sum(channels.values()) == pytest.approx(1.0)


def test_sends_are_at_the_moment_of_the_wave(decisions: list[LoggedDecision]) -> None:
    """A send goes out when it was decided and costs nothing, since the log has no prices; no send has no time."""
    for logged in decisions:
        is_send = logged.action.channel != NO_SEND
        assert logged.action.send_time == (logged.context.decide_time if is_send else None)
        assert logged.price_micros == 0


def test_outcomes_are_views_and_one_order_of_the_whole_spend(decisions: list[LoggedDecision]) -> None:
    """A view is when it was, that of the wave's own hour half an hour later; the order is at the first transaction of the window, with all that was spent in it."""
    log = make_starbucks(CUSTOMERS)
    for logged, row in zip(decisions, log.decisions, strict=True):
        kinds = [outcome.type for outcome in logged.outcomes]
        assert kinds == ["seen"] * (row["hours_to_view"] is not None) + ["order"] * row["txns_72h"]
        for outcome in logged.outcomes:
            after = (outcome.occur_time - logged.context.decide_time) / HOUR
            if outcome.type == "seen":
                assert after == max(row["hours_to_view"], 0.5)
            else:
                first = first_transaction(log.events, row["customer_id"], row["wave_hour"])
                assert after == max(first, 0.5)
                assert outcome.value_micros == round(float(np.float32(row["spend_72h"])) * 1e6)


def first_transaction(events: Sequence[dict[str, object]], customer: int, hour: int) -> float:
    """Hours from a wave to the first transaction in its window."""
    found = [int(str(e["hour"])) - hour for e in events if e["customer_id"] == customer]
    return float(min(h for h in found if 0 <= h < 72))


def test_history_is_that_of_earlier_waves(decisions: list[LoggedDecision]) -> None:
    """Contacts and orders of a decision are the sends and orders of that customer's earlier waves, none of its own or later."""
    for index, logged in enumerate(decisions):
        wave, row = divmod(index, CUSTOMERS)
        earlier = [decisions[w * CUSTOMERS + row] for w in range(wave)]
        sends = [d.action.channel for d in earlier if d.action.send_time is not None]
        bought = [o.occur_time for d in earlier for o in d.outcomes if o.type == "order"]
        customer = logged.context.customer
        assert [contact.channel for contact in customer.contacts] == sends
        assert list(customer.order_times) == bought
        values = feature_values(logged.context, logged.action)
        assert values["contacts_30d"] == len(sends)
        assert values["orders_90d"] == len([t for t in bought if t <= logged.context.decide_time])


def test_missing_covariates_are_missing(decisions: list[LoggedDecision]) -> None:
    """What is not known of a customer is left out, not made zero or text."""
    rows = make_starbucks(CUSTOMERS).decisions

    for logged, row in zip(decisions, rows, strict=True):
        features = logged.context.features
        assert features.get("gender") == row["gender"]
        assert features.get("income") == row["income"]
        assert features["age"] == row["age"]
        assert set(features) <= set(starbucks.FEATURES)
    assert any(row["gender"] is None for row in rows)


def test_imported_log_can_be_learned_from(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The imported log has every decision, its response rate by channel is the file's, and repeating the import writes nothing."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    command = ["import", "--log", "starbucks", "--data", str(folder), "--to", url]
    assert main(command) == 0
    first_told = capsys.readouterr().out
    before = counts(url)

    assert main(command) == 0

    total = CUSTOMERS * WAVES
    assert f"{total} decisions written to {url}, 0 were there before" in first_told
    assert f"0 decisions written to {url}, {total} were there before" in capsys.readouterr().out
    assert counts(url) == before
    assert before["decisions"] == total
    assert before["customers"] == CUSTOMERS
    data = read_dataset(url, starbucks.WINDOW, as_of=starbucks.START + timedelta(hours=408 + 72))
    assert len(data) == total
    rows = make_starbucks(CUSTOMERS).decisions
    for lead in ("mobile", "social", NO_SEND):
        expected = [row["txns_72h"] for row in rows if lead_of(row["action"]) == lead]
        # An order in the hours before the last wave is also in the window of the wave before, which ends as the next begins.
        assert data.response[data.channel == lead].sum() == sum(expected)


def counts(url: str) -> dict[str, int]:
    tables = ("decisions", "outcomes", "contacts", "customers", "identities")
    return {table: int(str(run_sql(url, f"SELECT count(*) FROM {table}")[0][0])) for table in tables}


def test_import_of_a_part_goes_on(folder: Path, tmp_path: Path) -> None:
    """An import after one that broke off writes what is missing, with the same ids."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    command = ["import", "--log", "starbucks", "--data", str(folder), "--to", url]
    main(command)
    whole = run_sql(url, "SELECT decision_id, channel, features FROM decisions ORDER BY decision_id")
    lost = to_micros(starbucks.START + timedelta(hours=200))
    for table in ("outcomes", "contacts", "requests", "decisions"):
        lost_ids = "SELECT decision_id FROM decisions WHERE decide_time > ?"
        run_sql(url, f"DELETE FROM {table} WHERE decision_id IN ({lost_ids})", lost)
    assert counts(url)["decisions"] == CUSTOMERS * 2

    main(command)

    assert run_sql(url, "SELECT decision_id, channel, features FROM decisions ORDER BY decision_id") == whole


def test_hillstrom_rows_are_decisions(folder: Path) -> None:
    """Each customer is one decision: the e-mail that was sent as its own channel, or none, at one third each."""
    rows = hillstrom.read_rows(folder)
    names = dict(zip(SEGMENTS, ("mens_email", "womens_email", NO_SEND), strict=True))

    decisions = list(hillstrom.logged_decisions(rows, KEY, ignore))

    assert [d.action.channel for d in decisions] == [names[row["segment"]] for row in rows]
    assert {d.propensity for d in decisions} == {1 / 3}
    assert len({d.context.customer.key for d in decisions}) == len(rows)
    for logged, row in zip(decisions, rows, strict=True):
        kinds = {outcome.type: outcome for outcome in logged.outcomes}
        assert set(kinds) == {kind for kind, what in (("visit", "visit"), ("order", "conversion")) if row[what]}
        if row["conversion"]:
            assert kinds["order"].value_micros == round(row["spend"] * 1e6)
        assert set(logged.context.features) == set(hillstrom.FEATURES)


def test_hillstrom_can_be_learned_from(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The test's log, all of one moment, is imported once and teaches that both e-mails bring orders."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    command = ["import", "--log", "hillstrom", "--data", str(folder), "--to", url]
    assert (main(command), main(command)) == (0, 0)
    assert f"0 decisions written to {url}, 600 were there before" in capsys.readouterr().out

    data = read_dataset(url, 14 * DAY, as_of=hillstrom.START + 14 * DAY)
    fitted = fit(data, Hyperparameters(trees=20), "hillstrom", lambda _: None)

    rows = make_hillstrom(600)
    assert data.response.sum() == sum(row["conversion"] for row in rows)
    assert data.value.sum() == pytest.approx(sum(row["spend"] for row in rows))
    assert fitted.metrics["later.decisions"] > 100


def test_rules_of_the_adapters_know_their_channels() -> None:
    """The rules beside each adapter are valid and have exactly its channels."""
    assert set(read_rules(starbucks.rules_path()).channels) == set(starbucks.CHANNELS)
    assert set(read_rules(hillstrom.rules_path()).channels) == set(hillstrom.CHANNELS.values()) - {NO_SEND}


def text_file(path: Path) -> None:
    path.write_text("customer_id,wave_hour\n1,0\n")


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def other_columns(path: Path) -> None:
    pq.write_table(pa.table({"customer_id": [1, 2], "anything": [1.0, 2.0]}), path)


def no_file(path: Path) -> None:
    path.unlink()


def no_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


FILES = ("starbucks_decisions.parquet", "starbucks_events.parquet", "hillstrom_email_rct.parquet")


@pytest.mark.parametrize("damage", [no_file, text_file, empty_file, cut_file, other_columns])
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused(
    name: str, damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing, no Parquet, cut off or of other columns is named on standard error, and nothing is made."""
    make_starbucks(5).write(tmp_path)
    write_hillstrom(tmp_path, make_hillstrom(5))
    damage(tmp_path / name)
    database = tmp_path / "made" / "log.db"

    code = main(["import", "--log", name.split("_")[0], "--data", str(tmp_path), "--to", f"sqlite:///{database}"])

    assert code == 2
    assert name in capsys.readouterr().err
    assert not database.exists()


@pytest.mark.parametrize("log", ["starbucks", "hillstrom"])
def test_logs_without_rows_are_refused(log: str, tmp_path: Path) -> None:
    """A file of the right columns without a row is refused."""
    make_starbucks(5).write(tmp_path)
    write_hillstrom(tmp_path, make_hillstrom(5))
    for name in FILES:
        no_rows(tmp_path / name)

    with pytest.raises(LogUnusable, match=r"has no wave at hour 0|has no rows"):
        starbucks.read_waves(tmp_path) if log == "starbucks" else hillstrom.read_rows(tmp_path)


def test_missing_wave_is_refused(tmp_path: Path) -> None:
    """A wave that the log does not have is refused with those that it has."""
    make_starbucks(5, hours=(0, 168)).write(tmp_path)

    with pytest.raises(LogUnusable, match=r"no wave at hour 336; it has \[0, 168\]"):
        starbucks.read_waves(tmp_path)


def test_unknown_segment_is_refused(tmp_path: Path) -> None:
    """A Hillstrom row of a segment that nobody knows is refused by its value."""
    rows = make_hillstrom(5)
    rows[3]["segment"] = "Childrens E-Mail"
    write_hillstrom(tmp_path, rows)

    with pytest.raises(LogUnusable, match="Childrens E-Mail"):
        hillstrom.read_rows(tmp_path)


def test_schema_of_the_small_files_is_that_of_the_adapters() -> None:
    """The columns that the adapters read are all in the files that the tests write."""
    assert set(starbucks.FEATURES) <= set(SCHEMA)
    assert set(hillstrom.FEATURES) <= set(HILLSTROM)
    assert {"customer_id", "hour", "event"} <= set(EVENTS)
    assert set(BUNDLES) == {"none", "base", "mobile", "social", "everything"}


@pytest.mark.outside_log
def test_real_starbucks_log(outside_logs: Path) -> None:
    """The real log has 17,000 customers in four waves; what went out everywhere was seen by 96 % and doubled the spend."""
    waves = starbucks.read_waves(outside_logs)

    assert [(wave.hour, len(wave)) for wave in waves] == [(hour, 17_000) for hour in HOURS]
    lead = np.concatenate([wave.lead for wave in waves])
    assert set(lead.tolist()) == {"base", "mobile", "none", "social"}
    spend = np.concatenate([wave.spend for wave in waves])
    viewed = np.isfinite(np.concatenate([wave.view_hours for wave in waves]))
    everything = np.concatenate([wave.is_everything for wave in waves])
    assert float(viewed[everything].mean()) == pytest.approx(0.96, abs=0.01)
    assert float(spend[everything].mean()) > 2 * float(spend[lead == NO_SEND].mean())
    assert not viewed[lead == NO_SEND].any()


@pytest.mark.outside_log
def test_real_starbucks_propensities_are_those_published(outside_logs: Path) -> None:
    """P(lead) of a wave is the sum of the published propensities of the offers of that lead."""
    table = pq.read_table(outside_logs / "starbucks_decisions.parquet").to_pydict()
    published: dict[tuple[int, str], dict[str, float]] = {}
    for hour, action, social, mobile, n, p in zip(
        *(table[c] for c in ("wave_hour", "action", "ch_social", "ch_mobile", "n_channels", "propensity")), strict=True
    ):
        lead = NO_SEND if n == 0 else "social" if social else "mobile" if mobile else "base"
        published.setdefault((hour, lead), {})[action] = p

    for wave in starbucks.read_waves(outside_logs):
        for lead in np.unique(wave.lead):
            own = float(wave.propensity_lead[wave.lead == lead][0])
            assert own == pytest.approx(sum(published[wave.hour, str(lead)].values()))


@pytest.mark.outside_log
def test_real_starbucks_decisions(outside_logs: Path) -> None:
    """Of the real first two waves, base is split evenly, history is the first wave's, and no covariate is not a number."""
    waves = [few(wave, 2000) for wave in starbucks.read_waves(outside_logs, HOURS[:2])]

    decisions = list(starbucks.logged_decisions(waves, KEY, ignore))

    channels = Counter(d.action.channel for d in decisions)
    assert set(channels) == {"web", "email", "mobile", "social", NO_SEND}
    assert stats.binomtest(channels["web"], channels["web"] + channels["email"]).pvalue > 1e-4
    for first, second in zip(decisions[:2000], decisions[2000:], strict=True):
        assert len(second.context.customer.contacts) == (first.action.send_time is not None)
        assert all(v == v for v in second.context.features.values())


def few(wave: starbucks.Wave, count: int) -> starbucks.Wave:
    """The first customers of a wave."""
    arrays = {name: getattr(wave, name)[:count] for name in wave.__dataclass_fields__ if name != "hour"}
    return starbucks.Wave(hour=wave.hour, **arrays)


@pytest.mark.outside_log
def test_real_hillstrom_log(outside_logs: Path) -> None:
    """The real test has 38,591 rows, a third of each segment, and both e-mails bring more visits than none."""
    rows = hillstrom.read_rows(outside_logs)

    decisions = list(hillstrom.logged_decisions(rows[:3000], KEY, ignore))

    assert len(rows) == 38_591
    segments = Counter(row["segment"] for row in rows)
    assert set(segments) == set(SEGMENTS)
    assert all(abs(count / len(rows) - 1 / 3) < 0.01 for count in segments.values())
    visits = {s: np.mean([row["visit"] for row in rows if row["segment"] == s]) for s in SEGMENTS}
    assert visits["Mens E-Mail"] > visits["Womens E-Mail"] > visits["No E-Mail"]
    assert {d.propensity for d in decisions} == {1 / 3}
