"""Training data: which decisions are in it, what their labels are, and which columns they have."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from models.context import FeatureValue, Mode
from models.errors import LogUnusable
from models.features import FEATURES, Encoder
from tests.training.examples import (
    DAY,
    HOUR,
    NOW,
    UNIT,
    WINDOW,
    ask,
    closing,
    happened,
    in_process,
    logged,
    order,
    run_sql,
    world,
    write,
)
from training.dataset import check_learnable, find_columns, read_dataset
from training.journal import LoggedDecision, LoggedOutcome

SECOND = timedelta(seconds=1)


@pytest.fixture
def log_url(each_log_url: str) -> str:
    """The URL of a decision log that nobody wrote yet, on each engine."""
    return each_log_url


def read_one(url: str, *decisions: LoggedDecision) -> tuple[float, float, float]:
    """Write decisions and return response, value and unsubscribed of the earliest one."""
    write(url, [*decisions, closing()])
    data = read_dataset(url, WINDOW)
    return float(data.response[0]), float(data.value[0]), float(data.unsubscribed[0])


def test_order_within_the_window_is_a_response(log_url: str) -> None:
    """An order after the decision and within the window counts, with the margin that was reported."""
    assert read_one(log_url, logged("a", outcomes=[order(NOW + HOUR, 250 * UNIT)])) == (1.0, 250.0, 0.0)


def test_order_without_a_value_is_worth_the_margin_of_the_message(log_url: str) -> None:
    """Where an order was reported without its margin, the message's stands for it."""
    assert read_one(log_url, logged("a", outcomes=[order(NOW + HOUR)])) == (1.0, 900.0, 0.0)


def test_several_orders_are_one_response_of_their_whole_margin(log_url: str) -> None:
    """Two orders make one responder, and both their margins; a purchase in a store counts as an order does."""
    bought = LoggedOutcome(type="store_purchase", occur_time=NOW + 2 * HOUR, value_micros=50 * UNIT)

    assert read_one(log_url, logged("a", outcomes=[order(NOW + HOUR, 250 * UNIT), bought])) == (1.0, 300.0, 0.0)


@pytest.mark.parametrize(
    ("after", "response"),
    [(-HOUR, 0.0), (timedelta(0), 0.0), (SECOND, 1.0), (WINDOW, 1.0), (WINDOW + SECOND, 0.0), (10 * DAY, 0.0)],
)
def test_orders_outside_the_window_do_not_count(log_url: str, after: timedelta, response: float) -> None:
    """The window begins after the decision and includes its last moment."""
    assert read_one(log_url, logged("a", outcomes=[order(NOW + after)]))[0] == response


def test_a_return_takes_the_value_of_its_order_off(log_url: str) -> None:
    """An order that came back within the window is a response worth nothing; a return after it, or of an older order, takes nothing off."""
    window = 20 * DAY

    def back(moment: timedelta) -> LoggedOutcome:
        return LoggedOutcome(type="return", occur_time=NOW + moment, value_micros=70 * UNIT)

    bought = order(NOW + HOUR, 70 * UNIT)
    write(
        log_url,
        [
            logged("old", moment=NOW - DAY, customer="anna", outcomes=[order(NOW - HOUR, 70 * UNIT), back(4 * DAY)]),
            logged("anna", customer="anna", outcomes=[bought]),
            logged("boris", customer="boris", outcomes=[bought, back(6 * DAY)]),
            logged("vera", customer="vera", outcomes=[bought, back(21 * DAY)]),
            closing(NOW + 60 * DAY),
        ],
    )

    data = read_dataset(log_url, window)

    assert data.response.tolist() == [1, 1, 1, 1]
    assert sorted(data.value.tolist()) == [0, 70, 70, 70]
    assert data.value[0] == 70


@pytest.mark.parametrize("kind", ["seen", "opened", "clicked", "delivered", "visit", "return"])
def test_only_orders_are_responses(log_url: str, kind: str) -> None:
    """Opens, clicks, visits and returns are no orders."""
    assert read_one(log_url, logged("a", outcomes=[LoggedOutcome(type=kind, occur_time=NOW + HOUR)]))[:2] == (0.0, 0.0)


def test_what_a_machine_did_is_not_learned_from(log_url: str) -> None:
    """Outcomes that a machine made, such as a link scanner that unsubscribes, are in no label."""
    gone = LoggedOutcome(type="unsubscribe", occur_time=NOW + HOUR)
    write(log_url, [logged("a", outcomes=[order(NOW + HOUR), gone]), closing()])

    run_sql(log_url, "UPDATE outcomes SET machine_generated = true")
    data = read_dataset(log_url, WINDOW)

    assert (data.response[0], data.value[0], data.unsubscribed[0]) == (0.0, 0.0, 0.0)


def test_orders_credited_to_another_decision_count(log_url: str) -> None:
    """The label is whether the customer ordered, whichever decision the order was reported under."""
    first = logged("first", channel="none")
    second = logged("second", moment=NOW + DAY, outcomes=[order(NOW + DAY + HOUR)])

    assert read_one(log_url, first, second)[0] == 1.0


def test_orders_of_other_customers_do_not_count(log_url: str) -> None:
    """An order is its customer's own."""
    other = logged("b", moment=NOW + HOUR, customer="boris", outcomes=[order(NOW + 2 * HOUR)])

    assert read_one(log_url, logged("a"), other)[0] == 0.0


def test_order_without_a_decision_counts(tmp_path: Path) -> None:
    """An order that was reported of the customer alone counts for what was decided before it, no send too."""
    with in_process(tmp_path) as service:
        service.decisions.choose(ask("a"))
        service.outcomes.report([happened("organic", "order", NOW + HOUR, customer="anna")])
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))

        data = read_dataset(service.url, WINDOW)

    assert (data.response[0], data.value[0]) == (1.0, 900.0)


def test_order_that_came_before_its_decision_was_known_counts(tmp_path: Path) -> None:
    """A parked outcome is learned from once its decision is known."""
    with in_process(tmp_path) as service:
        probe = service.decisions.choose(ask("a", mode=Mode.DRY_RUN)).decision.context.decision_id
        service.outcomes.report([happened("early", "order", NOW + HOUR, decision_id=probe)])
        service.decisions.choose(ask("a"))
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))

        data = read_dataset(service.url, WINDOW)

    assert data.response[0] == 1.0


@pytest.mark.parametrize("kind", ["unsubscribe", "complaint"])
def test_unsubscribes_are_those_of_the_decision_itself(log_url: str, kind: str) -> None:
    """Who leaves or complains is counted against the message that annoyed, not against the one before it."""
    gone = LoggedOutcome(type=kind, occur_time=NOW + DAY + HOUR)
    write(log_url, [logged("a"), logged("b", moment=NOW + DAY, outcomes=[gone]), closing()])

    data = read_dataset(log_url, WINDOW)

    assert data.unsubscribed.tolist() == [0.0, 1.0]


ENGAGEMENTS = {
    "clicked": (1.0, 1.0),
    "opened": (0.0, 1.0),
    "seen": (0.0, 1.0),
    "delivered": (0.0, 0.0),
    "order": (0.0, 0.0),
}


@pytest.mark.parametrize("kind", ENGAGEMENTS)
def test_engagement_is_that_with_the_message_itself(log_url: str, kind: str) -> None:
    """A click counts as clicked and seen, an open as seen, each of that message alone, within the window, and made by a person."""
    outcomes = [LoggedOutcome(type=kind, occur_time=NOW + DAY + HOUR)]
    late = [LoggedOutcome(type=kind, occur_time=NOW + 2 * DAY + WINDOW + SECOND)]
    write(
        log_url,
        [
            logged("a"),
            logged("b", moment=NOW + DAY, outcomes=outcomes),
            logged("c", moment=NOW + 2 * DAY, outcomes=late),
            closing(),
        ],
    )
    clicked, seen = ENGAGEMENTS[kind]

    data = read_dataset(log_url, WINDOW)

    assert data.clicked.tolist() == [0.0, clicked, 0.0]
    assert data.seen.tolist() == [0.0, seen, 0.0]
    run_sql(log_url, "UPDATE outcomes SET machine_generated = true")
    assert not read_dataset(log_url, WINDOW).seen.any()
    assert not read_dataset(log_url, WINDOW).clicked.any()


def test_open_windows_are_left_out(log_url: str) -> None:
    """A decision is learned from once the log reaches to the end of its window, not a moment earlier."""
    write(log_url, [logged("a"), logged("late", moment=NOW + WINDOW - SECOND, customer="boris")])
    with pytest.raises(LogUnusable, match=r"no trainable decision .* has its window of 3 days.* closed.*--as-of"):
        read_dataset(log_url, WINDOW)

    write(log_url, [logged("later", moment=NOW + WINDOW, customer="boris")])

    assert len(read_dataset(log_url, WINDOW)) == 1


def test_an_outcome_closes_a_window_as_a_decision_does(log_url: str) -> None:
    """The log is known up to its newest entry, which may be an outcome."""
    write(log_url, [logged("a", outcomes=[LoggedOutcome(type="seen", occur_time=NOW + WINDOW)])])

    assert len(read_dataset(log_url, WINDOW)) == 1


def test_until_leaves_later_decisions_out(log_url: str) -> None:
    """Only decisions made before `until` are read."""
    write(log_url, [logged(str(day), moment=NOW + day * DAY) for day in range(4)] + [closing()])

    data = read_dataset(log_url, WINDOW, until=NOW + 2 * DAY)

    assert len(data) == 2


def test_until_in_the_future_closes_no_window(log_url: str) -> None:
    """Asking for more than the log has does not make non-responders of decisions whose window is open."""
    write(log_url, [logged("a"), logged("open", moment=NOW + WINDOW, customer="boris")])

    data = read_dataset(log_url, WINDOW, until=NOW + 365 * DAY)

    assert len(data) == 1


def test_as_of_closes_windows(log_url: str) -> None:
    """Whoever knows that the log is complete beyond its newest entry can say so; an earlier time closes fewer windows."""
    write(log_url, [logged("a"), logged("quiet", moment=NOW + DAY, customer="boris")])

    assert len(read_dataset(log_url, WINDOW, as_of=NOW + DAY + WINDOW)) == 2
    assert len(read_dataset(log_url, WINDOW, as_of=NOW + DAY + WINDOW - SECOND)) == 1


def test_shadow_decisions_are_left_out(log_url: str) -> None:
    """Nobody was sent what was decided in the shadow, so nothing followed from it."""
    write(log_url, [logged("a"), logged("shadow", moment=NOW + HOUR, mode=Mode.SHADOW), closing()])

    assert len(read_dataset(log_url, WINDOW)) == 1


def test_not_sent_leaves_training(tmp_path: Path) -> None:
    """A decision that the caller did not carry out is not learned from; its customer's orders still count for the others."""
    with in_process(tmp_path) as service:
        kept = service.decisions.choose(ask("kept", channels=["push"], customer="boris")).decision
        answer = service.decisions.choose(ask("dropped", channels=["push"])).decision
        service.outcomes.report([happened("n", "not_sent", NOW + HOUR, decision_id=answer.context.decision_id)])
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))

        data = read_dataset(service.url, WINDOW)

    assert len(data) == 1
    assert data.propensity[0] == kept.choice.propensity


@pytest.mark.parametrize(
    ("ordered", "reported", "is_kept"), [(1, 2, True), (2, 2, True), (3, 2, False), (-1, 2, False)]
)
def test_a_send_that_an_order_came_before_stays_in_training(
    tmp_path: Path, ordered: int, reported: int, is_kept: bool
) -> None:
    """A send not made since its customer ordered first is an order after a send that cost nothing and arrived nowhere; the order must lie between decision and report."""
    with in_process(tmp_path) as service:
        answer = service.decisions.choose(ask("a", channels=["push"])).decision
        told = [
            happened("o", "order", NOW + ordered * HOUR, customer="anna"),
            happened("n", "not_sent", NOW + reported * HOUR, decision_id=answer.context.decision_id),
        ]
        service.clock.move(3 * HOUR)
        service.outcomes.report(told)
        service.decisions.choose(ask("kept", customer="boris"))
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))

        data = read_dataset(service.url, WINDOW)

    assert len(data) == 1 + is_kept
    assert data.cancelled.tolist() == [1.0] * is_kept + [0.0]
    assert data.response.tolist() == [1.0] * is_kept + [0.0]
    assert data.delivered.tolist() == [0.0] * is_kept + [1.0]
    assert data.price[0] == 0


def test_degraded_decisions_keep_their_propensity(tmp_path: Path) -> None:
    """The rule cascade decides with certainty, and that is what training sees."""
    with in_process(tmp_path) as service:
        service.decisions.choose(ask("a"))
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))

        data = read_dataset(service.url, WINDOW)

    assert (data.channel.tolist(), data.propensity.tolist()) == (["push"], [1.0])


def test_rows_are_as_logged_in_order_of_time(log_url: str) -> None:
    """Channel, propensity and price are the log's, and decisions come in order of time whatever order they were written in."""
    write(
        log_url,
        [
            logged("c", moment=NOW + 2 * HOUR, channel="sms", propensity=0.25, price_micros=5_300_000),
            logged("a", channel="none", propensity=0.5),
            logged("b", moment=NOW + HOUR, channel="email", propensity=1.0),
            closing(),
        ],
    )

    data = read_dataset(log_url, WINDOW)

    assert data.channel.tolist() == ["none", "email", "sms"]
    assert data.propensity.tolist() == [0.5, 1.0, 0.25]
    assert data.price.tolist() == [0.0, 0.0, 5.3]
    assert np.diff(data.decide_time).tolist() == [3_600_000_000] * 2


def names_of(*rows: Mapping[str, FeatureValue], exclude: tuple[str, ...] = ()) -> list[str]:
    return [column.name for column in find_columns([dict(row) for row in rows], exclude)]


def test_columns_are_the_feature_list_then_the_callers_own() -> None:
    """Built-in features come in the list's order, then the callers' by name, whatever order they were seen in."""
    names = names_of({"x.b": 1.0, "step": 1.0, "x.a": 2.0, "channel": "push"}, {"x.0": 3.0, "message_kind": "offer"})

    built_in = [feature.name for feature in FEATURES if feature.name in ("channel", "message_kind", "step")]
    assert names == [*built_in, "x.0", "x.a", "x.b"]


def test_features_that_are_in_no_list_are_left_out() -> None:
    """What serving could not work out again is no column."""
    assert names_of({"channel": "push", "retired_feature": 1.0}) == ["channel"]


def test_rare_categories_are_left_out() -> None:
    """A category seen less than five times is none, so that the model learns what an unseen one does; channels all stay."""
    rows: list[dict[str, FeatureValue]] = [{"channel": "push", "x.city": "Moscow"}] * 5
    rows += [{"channel": "sms", "x.city": "Omsk"}] * 4

    channel, city = find_columns(rows)

    assert channel.categories == ("push", "sms")
    assert city.categories == ("Moscow",)
    assert np.isnan(Encoder([city]).encode_values({"x.city": "Omsk"})[0])


def test_a_feature_with_any_text_is_a_category() -> None:
    """Numbers and truth values are numbers; one text among them makes a category of the feature."""
    rows: list[dict[str, FeatureValue]] = [{"x.n": 1.0, "x.t": True, "x.m": 3.0}] * 5
    rows += [{"x.n": 2.0, "x.t": False, "x.m": "gold"}] * 5

    columns = find_columns(rows)

    assert {column.name: column.kind for column in columns} == {"x.n": "number", "x.t": "number", "x.m": "category"}


def test_numbers_among_texts_are_categories() -> None:
    """A size that is sometimes a number keeps that number as a category, spelled as serving spells it; rare ones are left out."""
    rows: list[dict[str, FeatureValue]] = [{"x.size": 42.0}] * 5
    rows += [{"x.size": "XL"}] * 5
    rows += [{"x.size": True}] * 4

    (size,) = find_columns(rows)

    assert size.categories == ("42", "XL")
    assert Encoder([size]).encode_values({"x.size": 42.0}).tolist() == [0.0]


def varied(count: int = 6) -> list[LoggedDecision]:
    """Decisions of which feature and channel vary."""
    return [
        logged(
            f"v{number}",
            moment=NOW + number * HOUR,
            channel=("push", "sms", "none")[number % 3],
            features={"age": float(20 + number), "shop": "main", "club": "gold" if number % 2 else "blue"},
        )
        for number in range(count)
    ]


def test_constant_columns_are_left_out(log_url: str) -> None:
    """A column in which nothing varies teaches nothing; the channel stays in any case."""
    write(log_url, [*varied(), closing()])
    names = [column.name for column in read_dataset(log_url, WINDOW).columns]

    assert "channel" in names
    assert "x.age" in names
    assert {"x.shop", "message_kind", "order_margin", "step"}.isdisjoint(names)


def test_the_channel_stays_where_it_does_not_vary(log_url: str) -> None:
    """A log of one channel has the column channel."""
    write(log_url, [logged("a"), logged("b", moment=NOW + HOUR), closing()])

    data = read_dataset(log_url, WINDOW)

    assert data.columns[0].name == "channel"
    assert data.matrix.shape[0] == 2


def test_excluded_features_are_left_out(log_url: str) -> None:
    """Features named to be left out are no columns; all others stay."""
    write(log_url, [*varied(), closing()])
    before = [column.name for column in read_dataset(log_url, WINDOW).columns]

    after = [column.name for column in read_dataset(log_url, WINDOW, exclude=["x.age", "local_hour"]).columns]

    assert after == [name for name in before if name not in ("x.age", "local_hour")]


def test_excluding_what_is_not_there_is_refused(log_url: str) -> None:
    """A feature that is misspelled would be learned from in silence; the refusal names those that there are."""
    write(log_url, [*varied(), closing()])

    with pytest.raises(LogUnusable, match=r"no feature agee.*x\.age"):
        read_dataset(log_url, WINDOW, exclude=["agee"])


def test_built_in_features_may_be_excluded_where_the_log_has_none(log_url: str) -> None:
    """A feature of the list may be left out of any log, whether the log has it or not."""
    write(log_url, [*varied(), closing()])

    assert len(read_dataset(log_url, WINDOW, exclude=["offer"])) == 6


def digest_of(url: str, *, window: timedelta = WINDOW) -> str:
    return read_dataset(url, window).digest


def test_digest_is_of_the_values_alone(tmp_path: Path) -> None:
    """The same decisions in another file, written in another order, have the same digest."""
    one, two = (f"sqlite:///{tmp_path / name}.db" for name in ("one", "two"))
    write(one, [*varied(), closing()])
    write(two, [closing(), *reversed(varied())])
    write(two, [logged("shadow", mode=Mode.SHADOW)])

    assert digest_of(one) == digest_of(two) == digest_of(one)


CHANGES: dict[str, Callable[[LoggedDecision], LoggedDecision]] = {
    "propensity": lambda d: replace(d, propensity=0.4999999),
    "price": lambda d: replace(d, price_micros=1),
    "response": lambda d: replace(d, outcomes=(order(d.context.decide_time + HOUR),)),
    "unsubscribed": lambda d: replace(d, outcomes=(LoggedOutcome(type="complaint", occur_time=NOW + DAY),)),
    "feature": lambda d: replace(d, context=replace(d.context, features={**d.context.features, "age": 99.0})),
    "text": lambda d: replace(d, context=replace(d.context, features={**d.context.features, "club": "red"})),
    "channel": lambda d: replace(d, action=replace(d.action, channel="email")),
    "time": lambda d: replace(d, context=replace(d.context, decide_time=d.context.decide_time + SECOND)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_changes_with_any_value(tmp_path: Path, change: str) -> None:
    """A change of one value of one decision changes the digest."""
    before, after = (f"sqlite:///{tmp_path / name}.db" for name in ("before", "after"))
    decisions = varied(10)
    write(before, [*decisions, closing()])
    write(after, [CHANGES[change](decisions[1]), decisions[0], *decisions[2:], closing()])

    assert digest_of(before) != digest_of(after)


def test_digest_changes_with_the_value_of_an_order(tmp_path: Path) -> None:
    """Two logs that differ in the margin of one order differ in their digest."""
    urls = [f"sqlite:///{tmp_path / str(value)}.db" for value in (10, 11)]
    for url, value in zip(urls, (10, 11), strict=True):
        write(url, [*varied(), logged("o", outcomes=[order(NOW + HOUR, value * UNIT)]), closing()])

    assert digest_of(urls[0]) != digest_of(urls[1])


def test_take_keeps_what_the_mask_says() -> None:
    """Every array of a part has the rows for which the mask is true."""
    data = world(300)
    mask = data.channel == "push"

    part = data.take(mask)

    assert len(part) == int(mask.sum())
    assert set(part.channel.tolist()) == {"push"}
    for name in (
        "matrix",
        "decide_time",
        "propensity",
        "price",
        "response",
        "value",
        "unsubscribed",
        "clicked",
        "seen",
    ):
        assert np.array_equal(getattr(part, name), getattr(data, name)[mask]), name


def test_missing_log_is_refused(tmp_path: Path) -> None:
    """Where there is no file the refusal names it and the option, and no file is made."""
    path = tmp_path / "absent.db"

    with pytest.raises(LogUnusable, match=r"no decision log .*absent\.db.*--log"):
        read_dataset(f"sqlite:///{path}", WINDOW)

    assert not path.exists()


def test_empty_log_is_refused(log_url: str) -> None:
    """A log without an entry is refused with what to do."""
    write(log_url, [])

    with pytest.raises(LogUnusable, match=r"decision log .* is empty; import or simulate one"):
        read_dataset(log_url, WINDOW)


@pytest.mark.parametrize("bad", [0.0, -0.25, 1.5])
def test_impossible_propensity_is_refused(log_url: str, bad: float) -> None:
    """A propensity outside (0, 1] is refused, with the decision that has it."""
    write(log_url, [logged("a"), logged("bad", moment=NOW + HOUR, propensity=bad), closing()])

    with pytest.raises(
        LogUnusable, match=rf"decision [0-9a-f-]+ step 1 has propensity {bad}, which is not in \(0, 1\]"
    ):
        read_dataset(log_url, WINDOW)


def test_few_decisions_are_refused() -> None:
    """Less than 200 decisions are too few, and the refusal says how many are needed."""
    with pytest.raises(LogUnusable, match="199 decisions are too few to learn from; at least 200 are needed"):
        check_learnable(world(199))

    check_learnable(world(600))


@pytest.mark.parametrize("responders", [0, 19, 581, 600])
def test_one_sided_responses_are_refused(responders: int) -> None:
    """Less than 20 that ordered, or that did not, cannot be told apart; the refusal has the numbers."""
    data = replace(world(600), response=(np.arange(600) < responders).astype(np.float64))

    with pytest.raises(LogUnusable, match=f"{responders} of 600 decisions were followed by an order; at least 20"):
        check_learnable(data)


def test_log_without_no_send_is_refused() -> None:
    """Without decisions that sent nothing there is no baseline."""
    data = world(1200)

    with pytest.raises(LogUnusable, match="no decision of the log is a no send"):
        check_learnable(data.take(data.channel != "none"))
