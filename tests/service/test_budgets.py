"""Budgets over gRPC: what is reserved, committed and released, and that nothing is ever reserved beyond them."""

import contextlib
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from models.context import Context
from models.decide import Decision, decide
from models.record import to_micros
from models.rules import parse_rules
from service.budgets import budget_states, demands, reserve, standings
from service.gen.channelchoice.v1.admin_service_pb2 import Budget, GetBudgetsRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import BatchChooseChannelRequest, ChooseChannelRequest
from service.gen.channelchoice.v1.decision_pb2 import (
    CASCADE_END_NO_STEP_LEFT,
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_SHADOW,
    SUPPRESSION_REASON_BUDGET_EXHAUSTED,
    VERDICT_DEFER,
    VERDICT_DO_NOT_SEND,
    VERDICT_SEND,
)
from service.gen.channelchoice.v1.decision_pb2 import (
    Decision as Answered,
)
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_DELIVERED,
    OUTCOME_TYPE_NOT_SENT,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_UNDELIVERED,
    Outcome,
    OutcomeType,
)
from service.ledger import BudgetShort, Ledger
from service.store.rows import new_decision_id
from service.store.store import LEDGER, History, Since, Store, Unit
from tests.service import served
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, moment_of, outcome, rubles
from tests.service.security import ADMIN, write_tokens
from tests.service.served import MovedClock, Served, ask_database, connected, refused, serve
from tests.unit.examples import with_channels

pytestmark = pytest.mark.usefixtures("engine")

SMS = 5_300_000
"""Price of an SMS in micros."""
MIDNIGHT = datetime(2026, 11, 4, 21, 0, tzinfo=UTC)
"""In Moscow, at the end of the day of NOW."""
_Call = namedtuple("_Call", ["method", "timeout", "metadata", "credentials"])


class AsAdmin(grpc.UnaryUnaryClientInterceptor):
    """Shows the token of somebody who may do everything."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(_Call(details.method, details.timeout, ADMIN, details.credentials), request)


def budget(amount: str, name: str = "day", period: str = "day", more: str = "") -> str:
    return f'\n[[budgets]]\nname = "{name}"\namount = "{amount}"\nperiod = "{period}"\n{more}\n'


@contextlib.contextmanager
def serve_with(folder: Path, budgets: str, clock: MovedClock | None = None) -> Iterator[Served]:
    """Serve the test's rules with budgets, to a caller who may do everything."""
    with serve(folder, RULES + budgets, clock=clock, tokens_file=write_tokens(folder)) as service:
        yield replace(service, grpc_channel=grpc.intercept_channel(service.grpc_channel, AsAdmin()))


def budgets_of(service: Served, **only: str) -> list[Budget]:
    return list(service.admin.GetBudgets(GetBudgetsRequest(**only)).budgets)


def standing(service: Served) -> tuple[int, int]:
    """Return what is reserved and committed of the only budget, in micros."""
    (found,) = budgets_of(service)
    return found.reserved.micros, found.committed.micros


def sms(number: int, **changes: Any) -> ChooseChannelRequest:
    """A request for another customer that can be sent through SMS alone."""
    return choose_request(f"request-{number}", customer=f"customer-{number}", channels=["sms"], **changes)


def of_step(event: str, kind: "OutcomeType.ValueType", decision: Answered, cost: float | None = None) -> Outcome:
    found = outcome(event, kind, decision_id=decision.decision_id, step=decision.step)
    if cost is not None:
        found.actual_cost.CopyFrom(rubles(cost))
    return found


def is_exhausted(decision: Answered) -> bool:
    return [s.reason for s in decision.suppressed] == [SUPPRESSION_REASON_BUDGET_EXHAUSTED]


def test_concurrent_clients_never_reserve_more_than_the_budget(tmp_path: Path) -> None:
    """Eight clients at once get just the sends that the budget pays for; the reservations of the answers add up to what it says."""
    with serve_with(tmp_path, budget("21.30")) as service, ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(service.decide, [sms(number) for number in range(40)]))
        reserved, committed = standing(service)

    sent = [answer for answer in answers if answer.verdict == VERDICT_SEND]
    assert len(sent) == 4
    assert sum(answer.reservation.amount.micros for answer in sent) == reserved == 4 * SMS
    assert committed == 0
    assert len({answer.reservation.reservation_id for answer in sent}) == 4
    assert all(is_exhausted(answer) for answer in answers if answer.verdict != VERDICT_SEND)


def test_an_exhausted_channel_is_told_with_figures_and_when_to_ask_again(tmp_path: Path) -> None:
    """The suppression names the budget, what is left and the start of its next period, when the same message can be sent."""
    with serve_with(tmp_path, budget("10")) as service:
        service.decide(sms(1))
        late = service.decide(sms(2))
        service.clock.moment = moment_of(late.retry_time) + 12 * HOUR
        again = service.decide(sms(3))
        (found,) = budgets_of(service)

    (suppressed,) = late.suppressed
    assert late.verdict == VERDICT_DEFER
    assert moment_of(late.retry_time) == moment_of(suppressed.retry_time) == MIDNIGHT
    assert suppressed.detail == "costs 5.30, budget day has 4.70 of 10.00 left"
    assert again.verdict == VERDICT_SEND
    assert moment_of(found.period_start_time) == MIDNIGHT
    assert moment_of(found.period_end_time) == MIDNIGHT + DAY
    assert (found.reserved.micros, found.committed.micros) == (SMS, 0)


def test_a_price_above_the_whole_budget_is_not_worth_waiting_for(tmp_path: Path) -> None:
    """Where no period ever pays for a send there is no time to ask again."""
    with serve_with(tmp_path, budget("5")) as service:
        decision = service.decide(sms(1))

    assert decision.verdict == VERDICT_DO_NOT_SEND
    assert not decision.suppressed[0].HasField("retry_time")


def test_free_channels_stay_open(tmp_path: Path) -> None:
    """An exhausted budget closes what it pays for; free channels are chosen as before, and reserve nothing."""
    with serve_with(tmp_path, budget("1")) as service:
        decision = service.decide(choose_request(channels=["push", "sms"]))
        reserved, _ = standing(service)

    assert (decision.verdict, decision.channel) == (VERDICT_SEND, "push")
    assert not decision.HasField("reservation")
    assert is_exhausted(decision)
    assert reserved == 0


def test_a_repeated_request_reserves_once(tmp_path: Path) -> None:
    """A request given again gets the same reservation, and nothing more is set aside."""
    with serve_with(tmp_path, budget("100")) as service:
        first, second = service.choose(sms(1)), service.choose(sms(1))
        reserved, _ = standing(service)

    assert second.replayed
    assert second.decision.reservation == first.decision.reservation
    assert moment_of(first.decision.reservation.expire_time) == moment_of(first.decision.send_window_end_time) + HOUR
    assert first.decision.reservation.reservation_id == f"{first.decision.decision_id}/1"
    assert reserved == SMS


@pytest.mark.parametrize("mode", [DECISION_MODE_SHADOW, DECISION_MODE_DRY_RUN])
def test_what_is_not_live_reserves_nothing(tmp_path: Path, mode: Any) -> None:
    """SHADOW and DRY_RUN see budgets and leave them alone."""
    with serve_with(tmp_path, budget("6")) as service:
        request = sms(1)
        request.mode = mode
        quiet = service.decide(request)
        live = service.decide(sms(2))
        second = sms(3)
        second.mode = mode
        late = service.decide(second)
        reserved, _ = standing(service)

    assert (quiet.verdict, live.verdict) == (VERDICT_SEND, VERDICT_SEND)
    assert not quiet.HasField("reservation")
    assert is_exhausted(late)
    assert reserved == SMS


Events = Callable[[Answered], Iterable[Outcome]]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_SENT, d)], (0, SMS), id="sent"),
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_SENT, d, 4.1)], (0, 4_100_000), id="sent for less"),
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_SENT, d, 9)], (0, 9_000_000), id="sent for more"),
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_NOT_SENT, d)], (0, 0), id="not sent"),
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_DELIVERED, d)], (0, SMS), id="delivered"),
        pytest.param(
            lambda d: [of_step("a", OUTCOME_TYPE_SENT, d), of_step("b", OUTCOME_TYPE_UNDELIVERED, d)],
            (0, SMS),
            id="undelivered costs",
        ),
        pytest.param(
            lambda d: [of_step("a", OUTCOME_TYPE_SENT, d), of_step("b", OUTCOME_TYPE_UNDELIVERED, d, 0)],
            (0, 0),
            id="undelivered is free",
        ),
        pytest.param(
            lambda d: [of_step("a", OUTCOME_TYPE_NOT_SENT, d), of_step("b", OUTCOME_TYPE_SENT, d, 5)],
            (0, 5_000_000),
            id="sent after all",
        ),
        pytest.param(
            lambda d: [of_step("a", OUTCOME_TYPE_SENT, d, 5), of_step("b", OUTCOME_TYPE_NOT_SENT, d)],
            (0, 5_000_000),
            id="not sent after sent",
        ),
        pytest.param(lambda d: [of_step("a", OUTCOME_TYPE_SENT, d)] * 2, (0, SMS), id="told twice"),
    ],
)
def test_outcomes_settle_a_reservation(tmp_path: Path, events: Events, expected: tuple[int, int]) -> None:
    """SENT commits what the send cost, NOT_SENT releases, and neither order nor repetition matters."""
    with serve_with(tmp_path, budget("100")) as service:
        decision = service.decide(sms(1))
        before = standing(service)
        for event in events(decision):
            service.report(event)
        after = standing(service)

    assert before == (SMS, 0)
    assert after == expected


def test_released_money_pays_for_another(tmp_path: Path) -> None:
    """What was not sent, and what cost less, is there for the next one."""
    with serve_with(tmp_path, budget("6")) as service:
        first = service.decide(sms(1))
        refused_one = service.decide(sms(2))
        service.report(of_step("a", OUTCOME_TYPE_NOT_SENT, first))
        second = service.decide(sms(3))
        service.report(of_step("b", OUTCOME_TYPE_SENT, second, 0.5))
        third = service.decide(sms(4))

    assert [d.verdict for d in (first, second, third)] == [VERDICT_SEND] * 3
    assert is_exhausted(refused_one)


def test_a_dearer_send_closes_the_budget_earlier(tmp_path: Path) -> None:
    """What a send really cost counts, also where that is more than was reserved; nothing is reserved beyond the budget."""
    with serve_with(tmp_path, budget("12")) as service:
        first = service.decide(sms(1))
        service.report(of_step("a", OUTCOME_TYPE_SENT, first, 13))
        late = service.decide(sms(2))
        spent = standing(service)

    assert is_exhausted(late)
    assert "0.00 of 12.00 left" in late.suppressed[0].detail
    assert spent == (0, 13_000_000)


def test_an_expired_reservation_counts_as_spent_until_it_was_not_sent(tmp_path: Path) -> None:
    """Money of which nothing is heard is not free again by itself; NOT_SENT frees it however late."""
    with serve_with(tmp_path, budget("6", period="month")) as service:
        silent = service.decide(sms(1))
        service.clock.moment = moment_of(silent.reservation.expire_time)
        expired = standing(service)
        late = service.decide(sms(2))
        service.report(of_step("a", OUTCOME_TYPE_NOT_SENT, silent))
        released = standing(service)

    assert expired == (0, SMS)
    assert is_exhausted(late)
    assert released == (0, 0)


def test_an_outcome_before_its_decision_settles_the_reservation(tmp_path: Path) -> None:
    """SENT that was parked commits as soon as the decision is known."""
    with serve_with(tmp_path, budget("6")) as service:
        known_later = new_decision_id(NOW, "request-1")
        early = outcome("a", OUTCOME_TYPE_SENT, decision_id=known_later)
        early.actual_cost.CopyFrom(rubles(2))
        statuses = service.statuses(early)
        decision = service.decide(sms(1))
        spent = standing(service)

    assert statuses == ["PARKED"]
    assert decision.decision_id == known_later
    assert spent == (0, 2_000_000)


def test_money_counts_in_the_period_of_its_decision(tmp_path: Path) -> None:
    """What is settled tomorrow changes yesterday's budget, not tomorrow's."""
    with serve_with(tmp_path, budget("6")) as service:
        decision = service.decide(sms(1))
        service.clock.moment = MIDNIGHT + 12 * HOUR
        service.report(of_step("a", OUTCOME_TYPE_SENT, decision, 5))
        today = standing(service)
        rows = service.rows(
            "SELECT b.reserved_micros + coalesce(sum(l.reserved_micros), 0), b.committed_micros + coalesce(sum(l.committed_micros), 0)"
            " FROM budgets b LEFT JOIN leases l ON l.budget = b.budget AND l.period_start = b.period_start"
            " GROUP BY b.period_start, b.reserved_micros, b.committed_micros ORDER BY b.period_start"
        )

    assert today == (0, 0)
    assert rows == [(0, 5_000_000)]


@pytest.mark.parametrize(
    ("moment", "verdict", "again"),
    [
        (datetime(2026, 11, 3, 20, 59, tzinfo=UTC), VERDICT_DEFER, datetime(2026, 11, 3, 21, 0, tzinfo=UTC)),
        (datetime(2026, 11, 4, 9, 0, tzinfo=UTC), VERDICT_SEND, None),
        (datetime(2026, 11, 5, 9, 0, tzinfo=UTC), VERDICT_SEND, None),
        (datetime(2026, 11, 5, 21, 0, tzinfo=UTC), VERDICT_DO_NOT_SEND, None),
    ],
)
def test_a_total_is_spent_on_its_own_days_alone(
    tmp_path: Path, moment: datetime, verdict: int, again: datetime | None
) -> None:
    """Before its first day a total defers to it, after its last one it is closed for good."""
    total = budget("100", "launch", "total", "start_date = 2026-11-04\nend_date = 2026-11-05")
    with serve_with(tmp_path, total, MovedClock(moment)) as service:
        decision = service.decide(sms(1))

    assert decision.verdict == verdict
    assert (moment_of(decision.retry_time) if decision.HasField("retry_time") else None) == again


def test_every_budget_that_counts_a_send_is_charged(tmp_path: Path) -> None:
    """A send takes its price from each budget of its channel and campaign, and from no other; the tightest one decides."""
    rules = (
        budget("100", "all", "month")
        + budget("6", "sms", more='channel = "sms"')
        + budget("100", "autumn", "week", 'campaign = "autumn"')
        + budget("100", "spring", "week", 'campaign = "spring"')
        + budget("100", "viber", more='channel = "viber"')
    )
    with serve_with(tmp_path, rules) as service:
        decision = service.decide(sms(1))
        late = service.decide(sms(2))
        found = {b.budget: b.reserved.micros for b in budgets_of(service)}
        of_sms = [b.budget for b in budgets_of(service, channel="sms")]
        of_spring = [(b.budget, b.campaign) for b in budgets_of(service, campaign="spring")]
        service.report(of_step("a", OUTCOME_TYPE_SENT, decision, 4))
        spent = {b.budget: b.committed.micros for b in budgets_of(service)}

    assert found == {"all": SMS, "autumn": SMS, "sms": SMS, "spring": 0, "viber": 0}
    assert spent == {"all": 4_000_000, "autumn": 4_000_000, "sms": 4_000_000, "spring": 0, "viber": 0}
    assert "budget sms" in late.suppressed[0].detail
    assert of_sms == ["sms"]
    assert of_spring == [("spring", "spring")]


def test_periods_are_those_of_the_calendar(tmp_path: Path) -> None:
    """Days, weeks from Monday and months begin at midnight in the rules' zone."""
    rules = budget("1", "d", "day") + budget("1", "w", "week") + budget("1", "m", "month")
    with serve_with(tmp_path, rules) as service:
        found = {b.budget: (moment_of(b.period_start_time), moment_of(b.period_end_time)) for b in budgets_of(service)}

    assert found == {
        "d": (MIDNIGHT - DAY, MIDNIGHT),
        "m": (datetime(2026, 10, 31, 21, tzinfo=UTC), datetime(2026, 11, 30, 21, tzinfo=UTC)),
        "w": (datetime(2026, 11, 1, 21, tzinfo=UTC), datetime(2026, 11, 8, 21, tzinfo=UTC)),
    }


def test_unknown_channels_and_endless_campaigns_are_refused(tmp_path: Path) -> None:
    """GetBudgets names what is wrong with its filters."""
    with serve_with(tmp_path, "") as service, refused() as refusal:
        budgets_of(service, channel="fax", campaign="x" * 129)

    assert set(refusal[0].violations) == {"channel", "campaign"}


def test_messages_of_one_person_share_what_is_left(tmp_path: Path) -> None:
    """Of two messages that are decided together only as many are paid for as the budget can."""
    with serve_with(tmp_path, budget("10")) as service:
        requests = [choose_request(f"request-{n}", channels=[channel]) for n, channel in enumerate(("sms", "viber"))]
        requests[0].message.priority = 1
        results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests[::-1])).results
        service.clock.move(timedelta(hours=1))
        both = standing(service)
        third = service.decide(sms(7))

    assert [r.decision.verdict for r in results] == [VERDICT_SEND, VERDICT_SEND]
    assert both == (SMS + 4_100_000, 0)
    assert is_exhausted(third)


def test_the_worthier_message_of_one_person_is_paid_for(tmp_path: Path) -> None:
    """Where the budget pays for one of two messages, it is that of higher priority, wherever it stands in the batch."""
    with serve_with(tmp_path, budget("6")) as service:
        requests = [choose_request(f"request-{n}", channels=[channel]) for n, channel in enumerate(("viber", "sms"))]
        requests[1].message.priority = 1
        results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results
        spent = standing(service)

    assert [r.decision.verdict for r in results] == [VERDICT_DEFER, VERDICT_SEND]
    assert is_exhausted(results[0].decision)
    assert spent == (SMS, 0)


def test_later_steps_of_a_cascade_reserve_too(tmp_path: Path) -> None:
    """AdvanceCascade reserves a paid step; where the money has gone by then and does not come back, the cascade ends."""
    total = budget("6", "launch", "total", "start_date = 2026-11-04\nend_date = 2026-11-30")
    with serve_with(tmp_path, total) as service:
        first = [service.decide(choose_request(f"r{n}", customer=f"c{n}", channels=["push", "sms"])) for n in range(2)]
        service.clock.moment = moment_of(first[0].cascade.advance_time)
        paid, ended = (service.advance(decision.decision_id, 1) for decision in first)
        repeated = service.advance(first[0].decision_id, 1)
        spent = standing(service)

    assert (paid.verdict, paid.channel) == (VERDICT_SEND, "sms")
    assert paid.reservation.reservation_id == f"{paid.decision_id}/2"
    assert repeated.reservation == paid.reservation
    assert (ended.verdict, ended.cascade.end) == (VERDICT_DO_NOT_SEND, CASCADE_END_NO_STEP_LEFT)
    assert spent == (SMS, 0)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """What was reserved before the process ended is reserved after it starts again."""
    with serve_with(tmp_path, budget("6")) as service:
        service.decide(sms(1))
    with serve_with(tmp_path, budget("6")) as service:
        late = service.decide(sms(2))

    assert is_exhausted(late)


def test_a_lowered_budget_reserves_nothing_more(tmp_path: Path) -> None:
    """With a smaller amount in the rules what was spent stays spent, and nothing is left."""
    with serve_with(tmp_path, budget("20")) as service:
        service.decide(sms(1))
    with serve_with(tmp_path, budget("2")) as service:
        late = service.decide(sms(2))
        spent = standing(service)

    assert is_exhausted(late)
    assert spent == (SMS, 0)


def test_decision_and_reservation_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    """Where the reservation cannot be written there is no decision either, and the call can be repeated."""
    with serve_with(tmp_path, budget("6")) as service:
        with connected(service.database) as run:
            run("ALTER TABLE reservations RENAME TO hidden")
            with refused() as refusal:
                service.decide(sms(1))
            run("ALTER TABLE hidden RENAME TO reservations")
        kept = service.rows("SELECT count(*) FROM decisions")
        decision = service.choose(sms(1))
        spent = standing(service)

    assert refusal[0].code is grpc.StatusCode.UNAVAILABLE
    assert kept == [(0,)]
    assert not decision.replayed
    assert spent == (SMS, 0)


# --- decided at once by several, kept one after another

RULES_OF_SIX = parse_rules(RULES + budget("6"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(served.database_in(tmp_path))
    yield opened
    opened.close()


def history(store: Store) -> History:
    """What the store says at NOW to somebody who is new."""
    since = Since(contacts_after=0, orders_after=0, activity_after=0, most=1)
    return store.read(lambda reader: reader.find_history("nobody", since, to_micros(NOW), ""))


def decided(store: Store, number: int, *channels: str) -> Decision:
    """A decision by what the store says of the budget, not kept yet."""
    states = budget_states(history(store), RULES_OF_SIX, "autumn", NOW, {})
    context: Context = replace(with_channels(*channels), decision_id=f"decision-{number}", budgets=states)
    return decide(context, RULES_OF_SIX, None)


def keep(store: Store, *decisions: Decision) -> None:
    def unit(work: Unit) -> None:
        reserve(work, RULES_OF_SIX, demands(RULES_OF_SIX, decisions), Ledger())

    store.write(unit, [LEDGER])


@pytest.mark.parametrize("channels", [("sms",), ("push", "sms")])
def test_who_comes_second_decides_again(store: Store, channels: tuple[str, ...]) -> None:
    """A decision whose paid channel was affordable when it was made, and is no more, is refused with what is left, whatever it drew."""
    first, second = decided(store, 1, "sms"), decided(store, 2, *channels)
    keep(store, first)

    with pytest.raises(BudgetShort) as short:
        keep(store, second)

    assert (short.value.budget, short.value.left_micros) == ("day", 700_000)
    assert store.read(lambda reader: reader.list_reservations("decision-2", 1)) == []
    keep(store, decided(store, 2, *channels))


def test_decisions_made_together_are_checked_as_they_were_made(store: Store) -> None:
    """What one decision of a batch left for the next is no surprise; what others took is."""
    first = decided(store, 1, "sms")
    left = replace(first.context.budgets[0], left_micros=first.context.budgets[0].left_micros - SMS)
    second = decide(replace(with_channels("sms"), decision_id="decision-2", budgets=(left,)), RULES_OF_SIX, None)
    other = decided(store, 3, "viber")

    keep(store, second, first)
    with pytest.raises(BudgetShort):
        keep(store, other)

    assert second.choice.action is None
    assert len(store.read(lambda reader: reader.list_reservations("decision-1", 1))) == 1


def test_two_writers_on_one_database_never_reserve_more(tmp_path: Path) -> None:
    """Two stores that write at once, each from several threads, reserve just what the budget pays for."""
    url = served.database_in(tmp_path)
    rules = parse_rules(RULES + budget("60"))
    stores = [Store(url), Store(url)]

    def spend(number: int) -> bool:
        opened = stores[number % 2]
        most: dict[str, int] = {}
        while True:
            states = budget_states(history(opened), rules, "autumn", NOW, most)
            context = replace(with_channels("sms"), decision_id=f"decision-{number}", budgets=states)
            decision = decide(context, rules, None)
            try:
                asked = demands(rules, [decision])
                opened.write(lambda work, asked=asked: reserve(work, rules, asked, Ledger()), [LEDGER])  # type: ignore[misc]  # bound at once
            except BudgetShort as short:
                most[short.budget] = short.left_micros
            else:
                return decision.choice.slot is not None

    with ThreadPoolExecutor(8) as threads:
        sent = sum(threads.map(spend, range(40)))
    (found,) = stores[0].read(lambda reader: standings(reader, rules, NOW))
    for opened in stores:
        opened.close()

    assert sent == 11
    assert found.spending.reserved_micros == 11 * SMS
    assert ask_database(url, "SELECT sum(reserved_micros) FROM reservations") == [(11 * SMS,)]
