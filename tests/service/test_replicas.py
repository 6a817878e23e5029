"""Several processes' worth of services on one PostgreSQL database: what holds within one holds across all of them."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from models.correction import Cell, Sums
from models.errors import StoreUnavailable
from service.customers import PersonChanged, Resolved, keep_person, until_unchanged
from service.gen.channelchoice.v1.admin_service_pb2 import GetServingStatusRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelResponse
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_DO_NOT_SEND, VERDICT_SEND, Decision
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_NOT_SENT,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_UNSUBSCRIBE,
)
from service.store.profile import Profile
from service.store.store import PAUSES, CustomerRow, History, PauseRow, Reader, Since, Store, Unit, person_locks
from tests.postgres import PostgresServer
from tests.service import served
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, identity, moment_of, outcome
from tests.service.security import ADMIN, write_tokens
from tests.service.served import MovedClock, Served, serve

SMS = 5_300_000
BUDGET = """
[[budgets]]
name = "day"
amount = "60"
period = "day"
"""


def sums_of_ledger(service: Served) -> tuple[int, int, int]:
    """Return what the only budget has reserved, committed and leased, as its rows say."""
    ((reserved, committed),) = service.rows("SELECT sum(reserved_micros), sum(committed_micros) FROM budgets")
    ((left, settled, spent),) = service.rows(
        "SELECT coalesce(sum(left_micros), 0), coalesce(sum(reserved_micros), 0), coalesce(sum(committed_micros), 0) FROM leases"
    )
    return int(reserved + settled - left), int(committed + spent), int(left)


@pytest.fixture
def folders(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sequence[Path]]:
    """Folders of three services that keep everything in one database."""
    url = postgres.make_migrated()
    monkeypatch.setattr(served, "database_in", lambda _: url)
    made = [tmp_path / str(number) for number in range(3)]
    for folder in made:
        folder.mkdir()
    yield made
    postgres.drop(url)


@contextlib.contextmanager
def served_by(folders: Sequence[Path], rules: str = RULES) -> Iterator[list[Served]]:
    """Serve from every folder with one clock and one identity key."""
    clock = MovedClock()
    with contextlib.ExitStack() as closing:
        yield [
            closing.enter_context(serve(folder, rules, clock=clock, identity_key_file=folders[0] / "identity.key"))
            for folder in folders
        ]


@pytest.fixture
def replicas(folders: Sequence[Path]) -> Iterator[list[Served]]:
    with served_by(folders) as services:
        yield services


def spans(decisions: Sequence[Decision]) -> list[tuple[float, float]]:
    """When the sends among these decisions may happen: from, until."""
    return [
        (moment_of(d.send_time).timestamp(), moment_of(d.send_window_end_time).timestamp())
        for d in decisions
        if d.verdict == VERDICT_SEND
    ]


def test_a_request_decides_once_over_all_replicas(replicas: list[Served]) -> None:
    """The same request sent to every replica at the same moment is decided once; all others get that decision."""
    with ThreadPoolExecutor(12) as pool:
        for number in range(10):
            request = choose_request(f"request-{number}", customer=f"customer-{number}")
            asked = [pool.submit(replicas[i % 3].choose, request) for i in range(12)]
            answers: list[ChooseChannelResponse] = [future.result() for future in asked]
            assert len({answer.decision.decision_id for answer in answers}) == 1
            assert sum(not answer.replayed for answer in answers) == 1

    assert replicas[0].rows("SELECT count(*) FROM decisions") == [(10,)]
    assert replicas[0].rows("SELECT count(*) FROM requests") == [(10,)]


def test_one_request_id_of_two_customers_decides_once(replicas: list[Served]) -> None:
    """A request_id that two customers' requests share is decided for one of them; the other is told that it is taken."""

    def ask(number: int) -> str:
        request = choose_request(f"request-{number // 6}", customer=f"customer-{number}", channels=["in_app"])
        with contextlib.suppress(grpc.RpcError):
            return replicas[number % 3].choose(request).decision.decision_id
        return ""

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(48)))

    for of_one in (found[start : start + 6] for start in range(0, 48, 6)):
        assert len({decision_id for decision_id in of_one if decision_id}) == 1
    assert replicas[0].rows("SELECT count(*) FROM decisions") == [(8,)]


def test_caps_hold_across_replicas(replicas: list[Served]) -> None:
    """However many ask at once at however many replicas, nobody gets more than three marketing messages in 24 hours."""
    channels = ["in_app", "push", "email", "viber"]
    with ThreadPoolExecutor(18) as pool:
        for person in range(6):
            asked = [
                pool.submit(
                    replicas[number % 3].decide,
                    choose_request(f"{person}-{number}", customer=f"customer-{person}", channels=channels),
                )
                for number in range(18)
            ]
            sent = spans([future.result() for future in asked])
            assert len(sent) >= 3
            for _, end in sent:
                assert sum(start < end + DAY.total_seconds() and late >= end for start, late in sent) <= 3


def test_people_merge_once_across_replicas(replicas: list[Served]) -> None:
    """Identities that different replicas learn belong together, at the same time, end as one person with all contacts."""
    keys = [f"id-{number}" for number in range(8)]

    def ask(number: int) -> None:
        pair = [identity(keys[number % 8]), identity(keys[(number * 3 + 1) % 8])]
        request = choose_request(f"request-{number}", customer="", identities=pair, channels=["in_app"])
        replicas[number % 3].decide(request)

    with ThreadPoolExecutor(18) as pool:
        list(pool.map(ask, range(72)))
    everyone = [identity(key) for key in keys]
    last = replicas[0].decide(choose_request("last", customer="", identities=everyone, channels=["in_app"]))

    assert last.verdict != VERDICT_SEND
    assert replicas[0].rows("SELECT count(*) FROM customers") == [(1,)]
    assert replicas[0].rows("SELECT count(DISTINCT customer_key) FROM contacts") == [(1,)]
    assert replicas[0].rows("SELECT count(*) FROM identities") == [(8,)]


def test_a_budget_holds_across_replicas(folders: Sequence[Path]) -> None:
    """Replicas that ask and report at once never reserve and commit more than the budget, and the ledger adds up."""
    with served_by(folders, RULES + BUDGET) as replicas:

        def spend(number: int) -> bool:
            replica = replicas[number % 3]
            request = choose_request(f"request-{number}", customer=f"customer-{number}", channels=["sms"])
            decision = replica.decide(request)
            if decision.verdict == VERDICT_SEND:
                kind = OUTCOME_TYPE_SENT if number % 2 else OUTCOME_TYPE_NOT_SENT
                other = replicas[(number + 1) % 3]
                other.report(outcome(f"event-{number}", kind, decision_id=decision.decision_id))
            return decision.verdict == VERDICT_SEND

        with ThreadPoolExecutor(12) as pool:
            sent = sum(pool.map(spend, range(60)))
        sent += sum(spend(number) for number in range(61, 101, 2))  # what was released is spent, one after another
        ledger = sums_of_ledger(replicas[0])
        (kept,) = replicas[0].rows("SELECT sum(reserved_micros), sum(committed_micros) FROM reservations")

    assert sent >= 11
    assert ledger[:2] == tuple(map(int, kept))
    assert ledger[0] == 0
    assert 60_000_000 - SMS < ledger[1] <= 60_000_000


def test_consent_withdrawn_at_one_replica_holds_at_all(replicas: list[Served]) -> None:
    """An unsubscription that one replica has confirmed suppresses the channel at every other at once."""
    first = replicas[0].decide(choose_request("first", channels=["push"]))
    replicas[1].report(outcome("gone", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=first.decision_id))

    later = [replica.decide(choose_request(f"later-{n}", channels=["push"])) for n, replica in enumerate(replicas)]

    assert [decision.verdict for decision in later] == [VERDICT_DO_NOT_SEND] * 3


def test_an_order_reported_at_one_replica_stops_the_cascade_at_another(replicas: list[Served]) -> None:
    """No step follows an order, whichever replica it was reported to."""
    for number in range(3):
        decision = replicas[number].decide(
            choose_request(f"r{number}", customer=f"c{number}", channels=["push", "sms"])
        )
        replicas[number - 1].report(outcome(f"order-{number}", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id))

        replicas[0].clock.move(4 * HOUR)
        after = replicas[number - 2].advance(decision.decision_id, 1)

        assert after.verdict == VERDICT_DO_NOT_SEND


def test_a_cascade_advanced_at_all_replicas_has_one_next_step(replicas: list[Served]) -> None:
    """AdvanceCascade asked of every replica at once decides one step, and all answer it."""
    decision = replicas[0].decide(choose_request(channels=["push", "sms", "email"]))
    replicas[0].clock.move(4 * HOUR)

    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(replicas[number % 3].advance, decision.decision_id, 1) for number in range(9)]
        steps = [future.result() for future in asked]

    assert len({(step.verdict, step.channel, step.send_time.seconds) for step in steps}) == 1
    assert replicas[0].rows("SELECT count(*) FROM decisions") == [(2,)]


def test_a_pause_holds_at_all_replicas(folders: Sequence[Path], tmp_path: Path) -> None:
    """Replicas that pause the same channel at once agree, and none sends through it afterwards."""
    url = served.database_in(tmp_path)
    stores = [Store(url) for _ in range(3)]
    rows = [PauseRow(channel="push", pause_time=number, reason="outage") for number in range(30)]
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(lambda row: stores[row.pause_time % 3].write(lambda unit: unit.insert_pause(row), [PAUSES]), rows)
        )
    found = stores[0].read(lambda reader: reader.list_pauses())
    for store in stores:
        store.close()
    with served_by(folders) as replicas:
        decisions = [replica.decide(choose_request(f"r{n}", channels=["push"])) for n, replica in enumerate(replicas)]

    assert [row.channel for row in found] == ["push"]
    assert [decision.verdict for decision in decisions] == [VERDICT_DO_NOT_SEND] * 3


# --- what a unit of work sees of others


@pytest.mark.usefixtures("engine")
def test_a_decision_from_what_is_not_so_any_more_is_not_kept(tmp_path: Path) -> None:
    """What was decided about a person from an older version of them is refused, in every way in which they may have changed."""
    url = served.database_in(tmp_path)
    one, other = Store(url), Store(url)
    new = Resolved(key="a" * 32, new_hashes=(b"h1",), moment=NOW, history=History())
    one.write(lambda unit: keep_person(unit, new, 0), new.locks)
    known = replace(new, new_hashes=(), history=History(customer=CustomerRow(Profile(), 0, 0)))
    learned = replace(new, history=History(customer=CustomerRow(Profile(), 0, 1)))

    with pytest.raises(PersonChanged):
        other.write(lambda unit: keep_person(unit, new, 0), new.locks)
    other.write(lambda unit: keep_person(unit, known, 0), known.locks)
    for stale in (known, learned):
        with pytest.raises(PersonChanged):
            one.write(lambda unit, stale=stale: keep_person(unit, stale, 0), stale.locks)  # type: ignore[misc]  # bound at once
    version = one.read(lambda reader: reader.find_customer(new.key))
    one.close()
    other.close()

    assert version is not None
    assert version.version == 1


def test_a_person_merged_just_before_they_are_read_is_not_made_anew(
    replicas: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another replica merges a person away between finding their key and reading them, the decision is of who they are now."""
    ones = [identity("old"), identity("young")]
    for number, one in enumerate(ones):
        replicas[0].decide(choose_request(f"alone-{number}", customer="", identities=[one], channels=["in_app"]))
        replicas[0].clock.move(HOUR)
    find, calls = Reader.find_history, itertools.count()

    def interposed(reader: Reader, key: str, since: Since, until: int, holder: str | None) -> History:
        if next(calls) == 0:
            both = choose_request("both", customer="", identities=ones, channels=["in_app"])
            replicas[1].decide(both)
        return find(reader, key, since, until, holder)

    monkeypatch.setattr(Reader, "find_history", interposed)
    replicas[0].decide(choose_request("late", customer="", identities=[ones[1]], channels=["in_app"]))

    assert next(calls) > 2
    assert replicas[0].rows("SELECT count(*) FROM customers") == [(1,)]
    assert replicas[0].rows("SELECT count(DISTINCT customer_key) FROM decisions") == [(1,)]


def test_what_keeps_changing_is_given_up_with_a_way_out() -> None:
    """A person whom others never leave alone makes the call UNAVAILABLE instead of going on for ever."""
    attempts = itertools.count()

    def attempt() -> None:
        next(attempts)
        raise PersonChanged

    with pytest.raises(StoreUnavailable, match="keep changing this customer; try again"):
        until_unchanged(attempt)
    assert next(attempts) > 10


def test_sums_of_all_replicas_add_up(folders: Sequence[Path], tmp_path: Path) -> None:
    """What several processes add to the same statistics at once, in whatever order of cells, is all in the sums."""
    url = served.database_in(tmp_path)
    stores = [Store(url) for _ in folders]
    cells = [Cell("bundle", "notice", channel, "cart", 1, hour) for channel in ("push", "sms") for hour in (1, 2, 3)]

    def add(number: int) -> None:
        order = cells if number % 2 else cells[::-1]
        added = [(cell, Sums(number, 2 * number)) for cell in order]
        stores[number % 3].write(lambda unit: unit.add_statistics(added))

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(add, range(240)))
    found = stores[0].read(lambda reader: reader.list_statistics("bundle", 0, 9))
    for store in stores:
        store.close()

    total = sum(range(240))
    assert {cell: (sums.observed, sums.expected) for cell, sums in found} == dict.fromkeys(cells, (total, 2 * total))


def test_groups_that_lock_the_same_people_do_not_wait_for_each_other_forever(
    folders: Sequence[Path], tmp_path: Path
) -> None:
    """Units that touch the same people in opposite orders, at three processes at once, are all kept."""
    url = served.database_in(tmp_path)
    stores = [Store(url) for _ in folders]
    keys = [f"{number:032x}" for number in range(6)]
    for key in keys:
        stores[0].write(lambda unit, key=key: unit.insert_customer(key, Profile(), 0), person_locks([key]))  # type: ignore[misc]  # bound at once

    def touch(number: int) -> None:
        order = keys if number % 2 else keys[::-1]

        def unit(work: Unit) -> None:
            for key in order:
                work.touch_customer(key)

        stores[number % 3].write(unit, person_locks(order))

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(touch, range(240)))
    versions = {key: stores[0].read(lambda reader, key=key: reader.find_customer(key)) for key in keys}  # type: ignore[misc]  # bound at once
    for store in stores:
        store.close()

    assert {row.version for row in versions.values() if row is not None} == {240}


def test_two_services_share_a_port(folders: Sequence[Path]) -> None:
    """With shared_port the kernel divides connections between them, and every request is answered once, by one of them."""
    clock, tokens = MovedClock(), write_tokens(folders[0])
    common = {"clock": clock, "identity_key_file": folders[0] / "identity.key", "tokens_file": tokens}
    with contextlib.ExitStack() as closing:
        first = closing.enter_context(serve(folders[0], **common, shared_port=True))  # type: ignore[arg-type]  # settings
        address = first.address
        second = closing.enter_context(serve(folders[1], **common, shared_port=True, address=address))  # type: ignore[arg-type]  # as above
        assert second.address == address

        for number in range(40):
            with connection(address) as channel:
                request = choose_request(f"r-{number}", customer=f"c-{number}")
                replace(first, grpc_channel=channel).decisions.ChooseChannel(request, metadata=ADMIN)
        counts = set()
        for _ in range(40):
            with connection(address) as channel:
                admin = replace(first, grpc_channel=channel).admin
                counts.add(int(admin.GetServingStatus(GetServingStatusRequest(), metadata=ADMIN).decision_count))

    assert counts == {20} or (len(counts) == 2 and sum(counts) == 40 and min(counts) > 0)


def connection(address: str) -> grpc.Channel:
    """A connection that is shared with no other channel of this process."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
