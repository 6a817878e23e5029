"""Leases of budget: replicas that do not wait for each other still spend no more than there is, and lose none of it."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from service.gen.channelchoice.v1.admin_service_pb2 import Budget, GetBudgetsRequest, SetBudgetRequest
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_NOT_SENT, OUTCOME_TYPE_SENT
from service.ledger import LEASE, SHARE
from service.store.store import LEDGER
from tests.postgres import PostgresServer
from tests.service import served
from tests.service.examples import RULES, choose_request, outcome, rubles
from tests.service.security import write_tokens
from tests.service.served import MovedClock, Served, connected, refused, serve
from tests.service.test_budgets import SMS, AsAdmin, budget, is_exhausted, sms

AMOUNT = 1696
"""Of 320 SMS: the first lease is of 19."""


@pytest.fixture
def replicas(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sequence[Served]]:
    """Three services on one database and one clock, with one budget."""
    url = postgres.make_migrated()
    monkeypatch.setattr(served, "database_in", lambda _: url)
    clock = MovedClock()
    with contextlib.ExitStack() as closing:
        made = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            key, tokens = tmp_path / "0" / "identity.key", write_tokens(folder)
            service = serve(folder, RULES + budget(str(AMOUNT)), clock=clock, identity_key_file=key, tokens_file=tokens)
            opened = closing.enter_context(service)
            made.append(replace(opened, grpc_channel=grpc.intercept_channel(opened.grpc_channel, AsAdmin())))
        yield made
    postgres.drop(url)


def send(service: Served, number: int) -> bool:
    """Ask for an SMS for a customer of this number."""
    return service.decide(sms(number)).verdict == VERDICT_SEND


def shown(service: Served) -> Budget:
    (found,) = service.admin.GetBudgets(GetBudgetsRequest()).budgets
    return found


def rows_of(service: Served) -> tuple[int, int, int]:
    """Return what is reserved, committed and leased, by the rows as they are."""
    ((reserved, committed),) = service.rows("SELECT sum(reserved_micros), sum(committed_micros) FROM budgets")
    ((left, settled, spent),) = service.rows(
        "SELECT coalesce(sum(left_micros), 0), coalesce(sum(reserved_micros), 0), coalesce(sum(committed_micros), 0)"
        " FROM leases"
    )
    return int(reserved + settled - left), int(committed + spent), int(left)


def test_a_replica_with_a_lease_waits_for_nobody(replicas: Sequence[Served]) -> None:
    """While somebody holds the ledger's lock, a replica sends and settles out of its lease."""
    assert send(replicas[0], 0)
    with connected(replicas[0].database) as run:
        run(f"SELECT pg_advisory_xact_lock({LEDGER})")
        decision = replicas[0].decide(sms(1))
        event = outcome("sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id)
        event.actual_cost.CopyFrom(rubles(4))
        replicas[0].report(event)

    assert decision.verdict == VERDICT_SEND
    assert rows_of(replicas[0])[:2] == (SMS, 4_000_000)


def test_a_lease_is_shown_and_is_a_part_of_what_is_left(replicas: Sequence[Served]) -> None:
    """After the first send the lease is the stated share of the rest; GetBudgets tells it apart from what is reserved."""
    send(replicas[0], 0)
    found = shown(replicas[1])

    assert found.reserved.micros == SMS
    assert found.leased.micros == (AMOUNT * 1_000_000 - SMS) // SHARE


def test_others_find_the_money_of_a_lease_when_it_has_expired(replicas: Sequence[Served]) -> None:
    """What a replica that is gone had leased is out of reach for some seconds, and then everybody's again, to the last micro."""
    send(replicas[0], 0)
    leased = shown(replicas[0]).leased.micros

    first = sum(send(replicas[1], number) for number in range(1, 330))
    assert first == (AMOUNT * 1_000_000 - SMS - leased) // SMS
    replicas[1].clock.move(LEASE)
    later = sum(send(replicas[1], number) for number in range(400, 440))

    assert 1 + first + later == AMOUNT * 1_000_000 // SMS
    assert rows_of(replicas[1]) == (320 * SMS, 0, 0)


def test_a_lower_amount_takes_leases_back(replicas: Sequence[Served]) -> None:
    """An amount of just what is spent closes the budget at once, also for the replica that had a lease; nothing is spent beyond it."""
    assert send(replicas[0], 0)
    changed = replicas[1].admin.SetBudget(SetBudgetRequest(budget="day", cap=rubles(5.3), reason="a test"))
    late = replicas[0].decide(sms(1))

    assert changed.budget.leased.micros == 0
    assert is_exhausted(late)
    assert rows_of(replicas[0]) == (SMS, 0, 0)


def test_an_amount_below_what_is_spent_is_refused_with_leases_out(replicas: Sequence[Served]) -> None:
    """What leases hold is no reason to refuse a lower amount, what is reserved is."""
    send(replicas[0], 0)
    with refused() as refusal:
        replicas[1].admin.SetBudget(SetBudgetRequest(budget="day", cap=rubles(5), reason="a test"))

    assert refusal[0].code is grpc.StatusCode.INVALID_ARGUMENT
    assert "5.30 that are spent or set aside" in refusal[0].violations["cap"]


def test_what_is_settled_at_another_replica_adds_up(replicas: Sequence[Served]) -> None:
    """Reserved at one replica, committed at a second, released at a third: the sums are right at each moment, and after leases have ended."""
    decisions = [replicas[0].decide(sms(number)) for number in range(6)]
    for number, decision in enumerate(decisions):
        kind = OUTCOME_TYPE_SENT if number % 2 else OUTCOME_TYPE_NOT_SENT
        replicas[1 + number % 2].report(outcome(f"event-{number}", kind, decision_id=decision.decision_id))
    before = rows_of(replicas[0])
    replicas[0].clock.move(LEASE)
    after = shown(replicas[0])

    assert before[:2] == (0, 3 * SMS)
    assert (after.reserved.micros, after.committed.micros, after.leased.micros) == (0, 3 * SMS, 0)
    assert replicas[0].rows("SELECT count(*) FROM leases") == [(0,)]


def test_a_repeated_batch_takes_nothing_twice_out_of_a_lease(replicas: Sequence[Served]) -> None:
    """Requests that were answered before, given again with a new one beside them, reserve the new one alone."""
    first = choose_request("request-1", customer="customer-1", channels=["sms"])
    replicas[0].decisions.ChooseChannel(first)
    replicas[1].clock.move(timedelta(seconds=1))
    for replica in replicas[:2]:
        replica.decisions.ChooseChannel(first)
        send(replica, 2)

    assert rows_of(replicas[0])[0] == 2 * SMS


def test_many_at_all_replicas_never_take_more_than_there_is(replicas: Sequence[Served]) -> None:
    """Twelve clients at three replicas, while leases run out and are granted anew: rows add up whenever they are looked at."""
    total = AMOUNT * 1_000_000
    seen = []

    def spend(number: int) -> bool:
        replica = replicas[number % 3]
        decision = replica.decide(sms(number))
        if decision.verdict == VERDICT_SEND:
            kind = OUTCOME_TYPE_NOT_SENT if number % 3 == 0 else OUTCOME_TYPE_SENT
            replicas[number % 2].report(outcome(f"event-{number}", kind, decision_id=decision.decision_id))
        if number % 40 == 0:
            replica.clock.move(LEASE / 2)
        if number % 10 == 0:
            ((sums,),) = replica.rows(
                "SELECT sum(b.reserved_micros + b.committed_micros)"
                " + (SELECT coalesce(sum(l.reserved_micros + l.committed_micros), 0) FROM leases l) FROM budgets b"
            )
            seen.append(int(sums))
        return decision.verdict == VERDICT_SEND

    with ThreadPoolExecutor(12) as pool:
        sent = list(pool.map(spend, range(600)))
    (kept,) = replicas[0].rows("SELECT sum(reserved_micros), sum(committed_micros) FROM reservations")
    reserved, committed, leased = rows_of(replicas[0])

    assert max(seen) <= total
    assert (reserved, committed) == tuple(map(int, kept))
    assert reserved + committed + leased <= total
    assert committed == SMS * sum(is_sent for number, is_sent in enumerate(sent) if number % 3)
    assert committed > total - 3 * total // SHARE
