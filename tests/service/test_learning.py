"""Learning while serving: sums that go with decisions and outcomes, and the factors that decisions are made with."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from models.bundle import Bundle
from models.correction import (
    NOTICE,
    ORDER_HOURS,
    Cell,
    Factor,
    Factors,
    Happenings,
    Sums,
    Trials,
    cells,
    epoch_hour,
    happenings,
    trials,
)
from models.record import choice_from_json, context_from_json
from service.bundles import BundleHolder
from service.gen.channelchoice.v1.admin_service_pb2 import GetServingStatusRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import AdvanceCascadeRequest, ChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import Customer, CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import UpsertCustomersRequest
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_LIVE,
    DECISION_MODE_SHADOW,
    DECISION_VIEW_BASIC,
    VERDICT_SEND,
    Decision,
)
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_NOT_SENT,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SEEN,
    OUTCOME_TYPE_UNDELIVERED,
    Outcome,
    OutcomeType,
)
from service.learning import KEPT_HOURS, Learner
from service.store.engine import MIGRATIONS
from service.store.store import Reader, Store
from tests.funnels import write_funnel
from tests.service import served
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, identity, outcome
from tests.service.security import ADMIN, write_tokens
from tests.service.served import Served, ask_database, serve

pytestmark = pytest.mark.usefixtures("engine")

T = TypeVar("T")
FREE_RULES = (
    RULES.replace("limit = 3", "limit = 1000").replace("limit = 1\nwindow", "limit = 1000\nwindow")
    + "stop_on_click = false\n[policy]\nexploration_floor = 0.001\n"
)
SUMS = "SELECT bundle, stage, channel, kind, step, hour, observed, expected FROM statistics"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that forecasts."""
    folder = tmp_path_factory.mktemp("bundle") / "funnel"
    write_funnel(folder)
    return folder


@pytest.fixture
def service(tmp_path: Path, bundle: Path) -> Iterator[Served]:
    """A service with a bundle that forecasts, and caps that do not matter."""
    with serve(tmp_path, FREE_RULES, bundle=str(bundle)) as served:
        yield served


def request(name: str, *, customer: str = "customer-1", kind: str = "cart", **changes: Any) -> ChooseChannelRequest:
    found = choose_request(name, customer=customer, **changes)
    found.view = DECISION_VIEW_BASIC
    found.message.kind = kind
    return found


def advance(service: Served, decision_id: str) -> Decision:
    asked = AdvanceCascadeRequest(decision_id=decision_id, completed_step=1)
    return service.decisions.AdvanceCascade(asked).decision


def sums_of(service: Served, kind: str = "cart") -> dict[Cell, Sums]:
    """Return the sums of a kind of message that are not 0."""
    rows = service.rows(f"{SUMS} WHERE kind = ?", kind)
    return {Cell(*row[:6]): Sums(*row[6:]) for row in rows if row[6:] != (0, 0)}


def sums_of_send(service: Served, decision_id: str, step: int, happened: Happenings) -> dict[Cell, Sums]:
    """Return what a stored send adds to which sums, once it is known to have come to this."""
    asked = "SELECT choice, context, bundle_version, channel FROM decisions WHERE decision_id = ? AND step = ?"
    ((choice, context, version, channel),) = service.rows(asked, decision_id, step)
    forecast = choice_from_json(choice).forecast
    assert forecast is not None
    found: Trials = trials(forecast, happened)
    return dict(cells(version, channel, context_from_json(context).message.kind, step, found))


def add_up(*found: Mapping[Cell, Sums]) -> dict[Cell, Sums]:
    total: dict[Cell, Sums] = {}
    for one in found:
        for key, value in one.items():
            total[key] = total.get(key, Sums()) + value
    return {key: value for key, value in total.items() if value != Sums()}


def factors_in(service: Served, decision_id: str) -> Factors:
    ((context,),) = service.rows("SELECT context FROM decisions WHERE decision_id = ?", decision_id)
    return context_from_json(context).factors


# --- sums


def test_a_decision_books_what_its_send_is_expected_to_do(service: Served) -> None:
    """A LIVE send adds its forecast; the same request again adds nothing."""
    decision = service.decide(request("one"))
    booked = sums_of(service)
    service.decide(request("one"))

    assert decision.verdict == VERDICT_SEND
    assert booked == sums_of_send(service, decision.decision_id, 1, Happenings())
    assert sums_of(service) == booked


@pytest.mark.parametrize("mode", [DECISION_MODE_SHADOW, DECISION_MODE_DRY_RUN])
def test_only_live_decisions_are_learned_from(service: Served, mode: Any) -> None:
    """SHADOW and DRY_RUN add nothing, nor do outcomes that are reported of them."""
    asked = request("one")
    asked.mode = mode
    decision = service.decide(asked)
    service.report(outcome("seen", OUTCOME_TYPE_SEEN, decision_id=decision.decision_id))

    assert decision.verdict == VERDICT_SEND
    assert sums_of(service) == {}


def test_a_send_that_was_not_made_leaves_no_sums(service: Served) -> None:
    """NOT_SENT takes back what was booked."""
    decision = service.decide(request("one"))
    service.report(outcome("gone", OUTCOME_TYPE_NOT_SENT, decision_id=decision.decision_id))

    assert sums_of(service) == {}


_KINDS = (
    "SENT",
    "NOT_SENT",
    "UNDELIVERED",
    "DELIVERED",
    "SEEN",
    "OPENED",
    "CLICKED",
    "UNSUBSCRIBE",
    "ORDER",
    "STORE_PURCHASE",
)
_WEIGHTS = (1, 1, 1, 1, 2, 1, 4, 1, 4, 1)


def draw_outcomes(rng: random.Random, name: str, sends: Sequence[tuple[str, int]], begin: datetime) -> list[Outcome]:
    """Draw what happened after sends and beside them; some of it was made by machines, some of it came after the attribution window."""
    found = []
    for number in range(rng.randint(2, 12)):
        decision_id, step = rng.choice(sends)
        kind = rng.choices(_KINDS, _WEIGHTS)[0]
        is_anyhow = kind in ("ORDER", "STORE_PURCHASE") and rng.random() < 0.5
        after = rng.choice([timedelta(minutes=rng.randint(0, 80 * 60)), 31 * DAY])
        event = outcome(
            f"{name}-{number}",
            OutcomeType.Value(f"OUTCOME_TYPE_{kind}"),
            decision_id="" if is_anyhow else decision_id,
            step=0 if is_anyhow else step,
            occur_time=begin + after,
            customer=CustomerRef(customer_id=name) if is_anyhow else None,
        )
        event.machine_generated = kind in ("SEEN", "OPENED", "CLICKED") and rng.random() < 0.2
        found.append(event)
    return found


def known_of(events: Sequence[Outcome], decision_id: str, step: int, decide_time: datetime) -> Happenings:
    """Return what a set of outcomes says of a send."""
    own: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    orders: list[int] = []
    for event in events:
        kind = OutcomeType.Name(event.type).removeprefix("OUTCOME_TYPE_").lower()
        moment = event.occur_time.ToDatetime(tzinfo=UTC)
        if kind in ("order", "store_purchase"):
            orders.append(epoch_hour(moment))
        elif event.decision_id == decision_id and not event.machine_generated and moment <= decide_time + 30 * DAY:
            (own if event.step == step else others).append((kind, epoch_hour(moment)))
    return happenings(own, others, orders, order_until=epoch_hour(decide_time) + ORDER_HOURS)


def test_sums_are_those_of_all_that_is_known(service: Served) -> None:
    """Outcomes of three sends to each of 40 people, in random order, some twice, some before their decision: the sums are those of the whole set."""
    rng = random.Random(8)
    service.clock.move(40 * DAY)
    for number in range(40):
        name = f"person-{number}"
        begin = service.clock.now()
        first = service.decide(request(f"{name}-a", customer=name, kind=name))
        service.report(
            outcome(f"{name}-lost", OUTCOME_TYPE_UNDELIVERED, decision_id=first.decision_id, step=1, occur_time=begin)
        )
        known = [
            outcome(f"{name}-at-once", OUTCOME_TYPE_CLICKED, decision_id=first.decision_id, step=1, occur_time=begin)
        ]
        known = known if rng.random() < 0.3 else []
        if known:
            service.report(*known)
        second = advance(service, first.decision_id)
        later = request(f"{name}-b", customer=name, kind=name)
        later.mode = DECISION_MODE_DRY_RUN
        other = service.decide(later).decision_id
        later.mode = DECISION_MODE_LIVE
        assert second.verdict == VERDICT_SEND
        sends = [(first.decision_id, 1), (first.decision_id, 2), (other, 1)]
        events = draw_outcomes(rng, name, sends, begin - 5 * HOUR)
        early = [
            event for event in events if event.occur_time.ToDatetime(tzinfo=UTC) <= begin + DAY and rng.random() < 0.5
        ]
        told = [*events, *rng.choices(events, k=3)]
        rng.shuffle(told)

        if early:
            service.report(*early)
        service.decide(later)
        service.clock.move(32 * DAY)
        service.report(*told[:4])
        service.report(*told[4:], told[0])

        events = [
            *events,
            *known,
            outcome("", OUTCOME_TYPE_UNDELIVERED, decision_id=first.decision_id, step=1, occur_time=begin),
        ]
        expected = [sums_of_send(service, d, step, known_of(events, d, step, begin)) for d, step in sends]
        assert sums_of(service, name) == add_up(*expected)


def test_orders_of_who_turns_out_to_be_one_person_count(service: Served) -> None:
    """A click of one identity and an order of another are a click that was followed by an order, once both are known to be one person's."""
    clicked = service.decide(request("clicked", customer="phone"))
    seen = outcome("click", OUTCOME_TYPE_CLICKED, decision_id=clicked.decision_id, occur_time=NOW + HOUR)
    order = outcome(
        "order", OUTCOME_TYPE_ORDER, occur_time=NOW + 3 * HOUR, customer=CustomerRef(identities=[identity("a@b")])
    )
    service.report(seen, order)
    apart = sums_of(service)

    both = Customer(customer=CustomerRef(customer_id="phone", identities=[identity("a@b")]))
    service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[both]))

    hour = epoch_hour(NOW)

    def known(orders: Sequence[int]) -> dict[Cell, Sums]:
        return sums_of_send(
            service,
            clicked.decision_id,
            1,
            happenings([("clicked", hour + 1)], orders=orders, order_until=hour + ORDER_HOURS),
        )

    assert apart == known([])
    assert sums_of(service) == known([hour + 3])


def test_sums_too_old_to_count_are_deleted(service: Served) -> None:
    """The first decision of a day deletes what is older than 60 days, and nothing else."""
    service.decide(request("old", customer="one"))
    service.clock.move(59 * DAY)
    service.decide(request("young", customer="two"))
    kept = {cell.hour for cell in sums_of(service)}
    service.clock.move(5 * DAY)
    service.decide(request("now", customer="three"))

    left = {cell.hour for cell in sums_of(service)}
    assert min(kept) < epoch_hour(NOW + DAY)
    assert min(left) >= epoch_hour(NOW + 59 * DAY)


# --- factors


def teach(service: Served, count: int = 60, kind: str = "cart") -> None:
    """Send many messages of which nobody notices one, and wait until that is known."""
    for number in range(count):
        service.decide(request(f"lesson-{kind}-{number}", customer=f"pupil-{number}", kind=kind, channels=["push"]))
    service.clock.move(4 * DAY)


def test_decisions_are_made_with_what_was_learned(service: Served) -> None:
    """After 60 pushes that nobody noticed a decision carries a low factor for push, in SHADOW too; and none of channels it does not have."""
    fresh = service.decide(request("fresh"))
    teach(service)
    decision = service.decide(request("taught"))
    shadow = request("shadow")
    shadow.mode = DECISION_MODE_SHADOW
    without = service.decide(request("without", channels=["email"]))

    assert factors_in(service, fresh.decision_id) == {}
    assert factors_in(service, decision.decision_id)[NOTICE]["push"].value < 0.5
    assert factors_in(service, service.decide(shadow).decision_id) == factors_in(service, decision.decision_id)
    assert all("push" not in found for found in factors_in(service, without.decision_id).values())


def test_the_rules_can_switch_correction_off(tmp_path: Path, bundle: Path) -> None:
    """With policy.correction = false decisions are the bundle's alone, while sums are kept up for when it is on again."""
    with serve(tmp_path, FREE_RULES + "correction = false\n", bundle=str(bundle)) as service:
        teach(service)
        decision = service.decide(request("off"))
        assert factors_in(service, decision.decision_id) == {}
    with serve(tmp_path, FREE_RULES, bundle=str(bundle), clock=service.clock) as service:
        assert factors_in(service, service.decide(request("on")).decision_id)[NOTICE]["push"].value < 0.5


def test_another_bundle_learns_for_itself(tmp_path: Path, bundle: Path) -> None:
    """What was seen of one bundle does not correct the next."""
    with serve(tmp_path, FREE_RULES, bundle=str(bundle)) as service:
        teach(service)
    write_funnel(tmp_path / "next", "next")
    with serve(tmp_path, FREE_RULES, bundle=str(tmp_path / "next"), clock=service.clock) as service:
        assert factors_in(service, service.decide(request("next")).decision_id) == {}


def test_the_status_tells_what_was_learned(tmp_path: Path, bundle: Path) -> None:
    """GetServingStatus has the factor of each stage and channel, over all kinds of message, with what was observed and expected."""
    with serve(tmp_path, FREE_RULES, bundle=str(bundle)) as service:
        teach(service, kind="cart")
        sums = list(sums_of(service).items())
    tokens = write_tokens(tmp_path)
    with serve(tmp_path, FREE_RULES, bundle=str(bundle), tokens_file=tokens, clock=service.clock) as service:
        status = service.admin.GetServingStatus(GetServingStatusRequest(), metadata=ADMIN)

    found = {(c.stage, c.channel): c for c in status.corrections}
    expected = sum(value.expected for cell, value in sums if cell.stage == NOTICE) / 1e6
    assert set(found) == {("deliver", "push"), ("notice", "push")}
    assert found["notice", "push"].factor < 0.5
    assert found["notice", "push"].observed == 0
    assert 0.7 * expected < found["notice", "push"].expected <= expected
    assert found["deliver", "push"].factor == pytest.approx(1, abs=0.05)


# --- the learner


class CountingStore:
    """A store that lets something happen before each read, and counts them."""

    def __init__(self, store: Store, before: Callable[[], None] = lambda: None) -> None:
        self._store, self.before, self.reads = store, before, 0

    def read(self, question: Callable[[Reader], T]) -> T:
        self.reads += 1
        self.before()
        return self._store.read(question)


class Ticks:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(served.database_in(tmp_path))
    yield opened
    opened.close()


def book(store: Store, observed: float, expected: float, hour: int = epoch_hour(NOW), version: str = "a") -> None:
    added = [(Cell(version, NOTICE, "push", "cart", 1, hour), Sums(round(observed * 1e6), round(expected * 1e6)))]
    store.write(lambda unit: unit.add_statistics(added))


def push(learner: Learner, now: datetime = NOW, version: str = "a") -> float:
    """Return the factor of push notices, 1 where there is none."""
    return learner.factors(version, now, "cart", 1, ["push"]).get(NOTICE, {}).get("push", Factor()).value


def learner_of(store: Any, ticks: Ticks) -> Learner:
    return Learner(cast(Store, store), 10, ticks)


def test_sums_are_read_with_the_hour_and_every_few_seconds(store: Store) -> None:
    """Within an hour the factors stay for the poll interval, then tell what was added; a new hour is read at once."""
    counting, ticks = CountingStore(store), Ticks()
    learner = learner_of(counting, ticks)
    book(store, 10, 100)
    first = push(learner)
    book(store, 90, 0)
    again, reads = push(learner), counting.reads
    ticks.now = 10.0
    later = push(learner)
    book(store, 0, 900, epoch_hour(NOW) + 1)
    hour = push(learner, NOW + HOUR)

    assert (again, reads) == (first, 1)
    assert first < 0.3 < 0.9 < later
    assert hour < 0.3


def test_old_sums_that_changed_are_read_again_the_next_day(store: Store) -> None:
    """What is reported late changes sums of long ago; a learner that runs counts them from the next day on, as one that starts does."""
    ticks = Ticks()
    learner = learner_of(store, ticks)
    book(store, 100, 100, epoch_hour(NOW - 10 * DAY))
    before = push(learner)
    book(store, -100, 0, epoch_hour(NOW - 10 * DAY))
    same_day, next_day = push(learner, NOW + HOUR), push(learner, NOW + DAY)

    assert before == pytest.approx(1, abs=0.01)
    assert same_day == pytest.approx(1, abs=0.01)
    assert next_day == push(learner_of(store, ticks), NOW + DAY)
    assert next_day < 0.5


def test_nobody_waits_while_another_reads(store: Store) -> None:
    """While one thread reads, others decide with what was known before, and with nothing of a bundle that is not read yet."""
    counting, ticks = CountingStore(store), Ticks()
    learner = learner_of(counting, ticks)
    book(store, 10, 100)
    known = push(learner)
    reading, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reading.set()
        may_go_on.wait(30)

    counting.before = wait
    ticks.now = 60.0
    book(store, 0, 900)
    slow = threading.Thread(target=push, args=(learner,))
    slow.start()
    assert reading.wait(30)
    meanwhile, other = push(learner), push(learner, version="b")
    may_go_on.set()
    slow.join()

    assert meanwhile == known
    assert other == 1
    assert push(learner) != known


def test_no_decision_waits_for_all_sums_of_a_new_day(store: Store) -> None:
    """A learner that reads aside goes on with what it knows when a day begins, and counts all of it once a thread of its own has read it."""
    ticks, slow = Ticks(), SlowStore(store)
    learner = Learner(cast(Store, slow), 10, ticks, is_aside=True)
    book(store, 100, 100, epoch_hour(NOW - 10 * DAY))
    push(learner)
    book(store, -100, 0, epoch_hour(NOW - 10 * DAY))
    meanwhile = push(learner, NOW + DAY)
    slow.release.set()
    learner.close()

    assert meanwhile == pytest.approx(1, abs=0.01)
    assert push(learner, NOW + DAY) == push(learner_of(store, ticks), NOW + DAY) < 0.5


class SlowStore:
    """Lets a learner's own thread wait until it is released."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.release = threading.Event()

    def read(self, question: Callable[[Reader], T]) -> T:
        if threading.current_thread().name == "learner":
            assert self.release.wait(30)
        return self._store.read(question)


def test_sums_older_than_sixty_days_are_not_read(store: Store) -> None:
    """Sums that wait to be deleted count for nothing."""
    book(store, 0, 1000, epoch_hour(NOW) - KEPT_HOURS - 1)

    assert push(learner_of(store, Ticks())) == 1


def test_sums_add_up_in_the_store(store: Store) -> None:
    """Units that add to one sum, as two replicas do, leave their total; each sum is read with its key."""
    for observed, expected in ((1, 2), (0.5, 0.25), (-1, 0)):
        book(store, observed, expected)
    book(store, 5, 5, version="b")

    hour = epoch_hour(NOW)
    found = store.read(lambda reader: reader.list_statistics("a", hour, hour))

    assert found == [(Cell("a", NOTICE, "push", "cart", 1, hour), Sums(500_000, 2_250_000))]


def test_a_database_of_the_first_version_gets_the_table(tmp_path: Path) -> None:
    """A store that 0001 made goes on with all that is in it, and can learn."""
    path = tmp_path / "store.db"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO pauses VALUES ('push', 0, 'kept')")
    engine.dispose()

    opened = Store(f"sqlite:///{path}")
    book(opened, 1, 1)
    opened.close()

    assert ask_database(path, "SELECT reason FROM pauses") == [("kept",)]
    assert ask_database(path, "SELECT count(*) FROM statistics") == [(1,)]


def test_a_step_is_decided_by_the_one_bundle_that_its_factors_are_of(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call reads once which bundle serves: a swap between its factors and its decision cannot mix two."""
    decision = service.decisions.ChooseChannel(request("first")).decision
    service.report(outcome("failed", OUTCOME_TYPE_UNDELIVERED, decision_id=decision.decision_id, step=1))
    serving, reads = service.app.bundles.current, list[int]()

    def read(_: BundleHolder) -> Bundle | None:
        reads.append(1)
        return serving

    monkeypatch.setattr(BundleHolder, "current", property(read))
    step = advance(service, decision.decision_id)

    assert step.step == 2
    assert len(reads) == 1
