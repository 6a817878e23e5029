"""A challenger decides beside the champion: what is compared, what is left alone, and what is said."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from models.bundle import Bundle, load_bundle
from models.context import Mode
from models.decide import Decision, decide
from models.rules import Rules, parse_rules
from service.bundles import BundleHolder
from service.gen.channelchoice.v1.admin_service_pb2 import (
    GetServingStatusRequest,
    ReloadBundleRequest,
    ShadowComparison,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    StreamChooseChannelRequest,
)
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_MODE_SHADOW, VERDICT_SEND
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_TRANSACTIONAL
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_UNDELIVERED
from service.registry import Registry
from service.shadow import Shadow, Sums, compare
from tests.funnels import write_funnel
from tests.service.examples import HOUR, NOW, RULES, choose_request, outcome
from tests.service.security import ADMIN, write_tokens
from tests.service.served import MovedClock, Served, serve
from tests.unit.examples import CONTEXT

GREEDY = parse_rules(RULES + '[policy]\nname = "greedy"\n')
DRAWN = parse_rules(RULES)
_SECONDS = 30


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles that disagree about which channels are noticed."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, attention in (
        ("one", {"push": 4.0, "email": 0.1, "sms": 0.3}),
        ("two", {"push": 0.1, "email": 4.0, "sms": 3.0}),
    ):
        write_funnel(folder / name, name, attention)
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def one(folders: tuple[Path, Path]) -> Bundle:
    return load_bundle(folders[0])


@pytest.fixture(scope="module")
def two(folders: tuple[Path, Path]) -> Bundle:
    return load_bundle(folders[1])


def holder(source: Path | str) -> BundleHolder:
    found = BundleHolder(str(source), Registry("sqlite:///unused", Path("unused")), MovedClock())
    found.load()
    return found


def shadow_of(folders: tuple[Path, Path], rules: Rules = DRAWN, **settings: Any) -> Shadow:
    return Shadow(holder(folders[1]), holder(folders[0]), rules, **settings)


def ticking() -> Iterator[float]:
    """Count a tenth of a second with each look."""
    number = 0
    while True:
        yield number / 10
        number += 1


def compared(decision: Decision, rules: Rules, champion: Bundle, challenger: Bundle) -> Sums:
    found = compare(decision, rules, champion, challenger, ticking().__next__)
    assert found is not None
    return found


@pytest.mark.parametrize("rules", [GREEDY, DRAWN])
def test_a_bundle_agrees_with_itself(rules: Rules, one: Bundle) -> None:
    """Beside itself a bundle takes the same action with the same probabilities, and is worth no more and no less."""
    found = compared(decide(CONTEXT, rules, one), rules, one, one)

    assert (found.count, found.same, found.by_champion, found.by_challenger) == (1, 1, 0.0, 0.0)
    assert found.agreement == pytest.approx(1.0)
    assert found.seconds == found.most_seconds == pytest.approx(0.1)


def test_each_bundle_values_its_own_choice_most(one: Bundle, two: Bundle) -> None:
    """Where both choose the best by their own values, the challenger's choice is worth less to the champion, and more to itself."""
    without = replace(CONTEXT, options=tuple(o for o in CONTEXT.options if o.channel != "in_app"))

    found = compared(decide(without, GREEDY, one), GREEDY, one, two)

    assert found.same == 0
    assert found.agreement == pytest.approx(0.0)
    assert found.by_champion < 0 < found.by_challenger


def test_the_difference_is_that_of_the_values_that_were_decided_by(one: Bundle, two: Bundle) -> None:
    """With the same actions on both sides the difference is sum (q - p) v, by hand."""
    free = replace(CONTEXT, options=tuple(o for o in CONTEXT.options if o.channel in ("push", "email", "in_app")))
    mine, other = decide(free, DRAWN, one), decide(free, DRAWN, two)
    assert mine.distribution is not None
    assert other.distribution is not None
    p, q = mine.distribution.probabilities, other.distribution.probabilities

    found = compared(mine, DRAWN, one, two)

    assert mine.distribution.table.actions == other.distribution.table.actions
    assert found.by_champion == pytest.approx((q - p) @ mine.distribution.table.plan_micros)
    assert found.by_challenger == pytest.approx((q - p) @ other.distribution.table.plan_micros)


def test_paid_channels_that_one_leaves_out_have_a_value_too(one: Bundle, two: Bundle) -> None:
    """A bundle that leaves SMS out for its price still values the SMS of the other, below what it would choose."""
    cheap = replace(CONTEXT, message=replace(CONTEXT.message, order_margin_micros=90_000_000))
    strict = replace(GREEDY, policy=replace(GREEDY.policy, paid_optimism=1.0))
    mine, other = (decide(cheap, strict, bundle) for bundle in (one, two))
    assert mine.distribution is not None
    assert other.distribution is not None
    assert set(mine.distribution.table.actions) != set(other.distribution.table.actions)

    found = compared(mine, strict, one, two)

    assert found.by_champion <= 0 <= found.by_challenger


def test_sums_add_up() -> None:
    """Sums of parts are the sums of the whole, in whatever order; means and errors are those of the values."""
    values = [3.0, -1.0, 4.0, 1.5]
    parts = [
        Sums(count=1, by_champion=v, by_champion_squared=v * v, seconds=abs(v), most_seconds=abs(v)) for v in values
    ]

    whole = sum(parts, Sums())

    assert whole == sum(reversed(parts), Sums())
    assert whole.mean("by_champion") == pytest.approx(1.875)
    assert whole.error("by_champion") == pytest.approx((3.546875 / 4) ** 0.5)
    assert whole.most_seconds == 4.0


def test_a_full_queue_makes_nobody_wait(folders: tuple[Path, Path], one: Bundle) -> None:
    """What finds the queue full is counted and forgotten."""
    shadow, decision = shadow_of(folders, size=2), decide(CONTEXT, DRAWN, one)

    shadow.tell([decision] * 5)

    found = shadow.compared()
    assert found is not None
    assert (found.dropped, found.sums.count) == (3, 0)


def test_only_new_live_choices_of_the_champion_are_compared(
    folders: tuple[Path, Path], one: Bundle, two: Bundle
) -> None:
    """Decisions of other modes, without a choice, of another bundle, of owed messages and degraded ones are left alone."""
    shadow = shadow_of(folders, size=1)
    owed = replace(CONTEXT, message=replace(CONTEXT.message, category="transactional"))
    nobody = replace(CONTEXT, options=())
    others = [
        *(decide(replace(CONTEXT, mode=mode), DRAWN, one) for mode in (Mode.SHADOW, Mode.DRY_RUN)),
        decide(owed, DRAWN, one),
        decide(nobody, DRAWN, one),
        decide(CONTEXT, DRAWN, two),
        decide(CONTEXT, DRAWN, None),
    ]

    shadow.tell(others)
    shadow.tell([decide(CONTEXT, DRAWN, one)])

    found = shadow.compared()
    assert found is not None
    assert found.dropped == 0


def test_a_challenger_that_fails_is_counted(
    folders: tuple[Path, Path], one: Bundle, two: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the challenger is logged and counted, and the next decision is compared."""
    shadow, decision = shadow_of(folders), decide(CONTEXT, DRAWN, one)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("broken")

    with structlog.testing.capture_logs() as lines, monkeypatch.context() as patched:
        patched.setattr("service.shadow.decide", fail)
        shadow.compare(decision, one, two)
    shadow.compare(decision, one, two)

    found = shadow.compared()
    assert found is not None
    assert (found.failed, found.sums.count) == (1, 1)
    assert [(line["event"], line["kind"]) for line in lines] == [("shadow failed", "ZeroDivisionError")]


class Resting:
    """In place of the event that ends a thread: notes how long is rested, and ends after some rests."""

    def __init__(self, rests: int) -> None:
        self.left, self.rested = rests, list[float]()

    def is_set(self) -> bool:
        return len(self.rested) >= self.left

    def wait(self, seconds: float) -> None:
        self.rested.append(seconds)

    def set(self) -> None:
        self.left = 0


def test_the_challenger_takes_its_share_of_a_core_and_is_logged(folders: tuple[Path, Path], one: Bundle) -> None:
    """After each comparison the thread rests three times as long as it took, at a share of a quarter; at intervals it logs what was summed."""
    shadow = shadow_of(folders, share=0.25, log_seconds=0.5, timer=ticking().__next__)
    resting = Resting(3)
    shadow._stop = resting  # type: ignore[assignment]  # all of an event that the thread uses
    shadow.tell([decide(CONTEXT, DRAWN, one)] * 3)

    with structlog.testing.capture_logs() as lines:
        shadow._run()

    assert resting.rested == pytest.approx([3 * 0.3] * 3)
    told = [line for line in lines if line["event"] == "shadow"]
    assert [line["decisions"] for line in told] == [2]
    assert {"agreement", "difference_by_champion", "difference_by_challenger", "mean_ms", "dropped"} <= told[0].keys()
    assert told[0]["champion"] == one.version


def status_of(service: Served) -> ShadowComparison:
    return service.admin.GetServingStatus(GetServingStatusRequest(), metadata=ADMIN).shadow


def wait_for(service: Served, count: int) -> ShadowComparison:
    """Ask for the status until so many decisions were compared."""
    deadline = time.monotonic() + _SECONDS
    while (found := status_of(service)).decision_count < count:
        assert time.monotonic() < deadline, found
    return found


def ask_everything(service: Served) -> list[object]:
    """Ask by every method that decides, and return the answers; of the decisions 6 are to be compared."""
    stub, metadata = service.decisions, ADMIN
    owed, dry, shadowed = (choose_request(f"left-{i}", customer=f"left-{i}") for i in range(3))
    owed.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    dry.mode, shadowed.mode = DECISION_MODE_DRY_RUN, DECISION_MODE_SHADOW
    answers: list[Any] = [stub.ChooseChannel(choose_request("single"), metadata=metadata)]
    answers += [
        stub.ChooseChannel(request, metadata=metadata) for request in (choose_request("single"), owed, dry, shadowed)
    ]
    batch = BatchChooseChannelRequest(requests=[choose_request(f"b-{i}", customer=f"b-{i}") for i in range(3)])
    answers.append(stub.BatchChooseChannel(batch, metadata=metadata))
    streamed = [StreamChooseChannelRequest(request=choose_request("s", customer="s"))]
    answers += list(stub.StreamChooseChannel(iter(streamed), metadata=metadata))
    first = answers[0].decision
    assert first.verdict == VERDICT_SEND
    failed = outcome("failed", OUTCOME_TYPE_UNDELIVERED, decision_id=first.decision_id, step=1, occur_time=NOW)
    assert service.statuses(failed) == ["ACCEPTED"]
    service.clock.move(HOUR)
    answers.append(service.advance(first.decision_id, 1))
    return answers


def test_a_challenger_changes_nothing(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """With a challenger every answer and every row is what it is without; only the status tells of it, and of every new LIVE choice."""
    kept, answered = [], []
    (tmp_path / "identity.key").write_text("ab" * 32)
    for number, challenger in enumerate(("", str(folders[1]))):
        place = tmp_path / str(number)
        place.mkdir()
        options: dict[str, Any] = {"bundle": str(folders[0]), "identity_key_file": tmp_path / "identity.key"}
        with serve(place, shadow_bundle=challenger, **options) as service:
            answered.append(ask_everything(service))
            tables = (
                "decisions",
                "requests",
                "contacts",
                "outcomes",
                "statistics",
                "reservations",
                "budgets",
                "customers",
            )
            kept.append([sorted(service.rows(f"SELECT * FROM {table}"), key=repr) for table in tables])

    assert answered[0] == answered[1]
    assert kept[0] == kept[1]


def test_the_status_tells_of_the_challenger(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """GetServingStatus has both bundles' figures of what was compared: nothing of replays, other modes and owed messages."""
    with serve(
        tmp_path,
        bundle=str(folders[0]),
        shadow_bundle=str(folders[1]),
        shadow_share=1.0,
        tokens_file=write_tokens(tmp_path),
    ) as service:
        for number in range(6):
            for _ in range(2):
                service.decisions.ChooseChannel(choose_request(f"r-{number}", customer=f"c-{number}"), metadata=ADMIN)
        found = wait_for(service, 6)

    assert found.bundle_version == load_bundle(folders[1]).version
    assert found.bundle_error == ""
    assert (found.decision_count, found.dropped_count, found.failed_count) == (6, 0, 0)
    assert 0 <= found.same_action_share <= 1
    assert 0 < found.agreement < 1
    assert found.difference_by_champion.currency == "RUB"
    assert found.difference_by_challenger.micros > found.difference_by_champion.micros
    assert timedelta(0) < found.mean_latency.ToTimedelta() <= found.longest_latency.ToTimedelta()


def test_a_missing_challenger_is_told_and_comes_in_later(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """Without a good challenger the service serves as ever and the status says why; ReloadBundle takes it in, and never fails for it."""
    with serve(
        tmp_path, bundle=str(folders[0]), shadow_bundle=str(tmp_path / "two"), tokens_file=write_tokens(tmp_path)
    ) as service:
        service.decisions.ChooseChannel(choose_request("first"), metadata=ADMIN)
        service.admin.ReloadBundle(ReloadBundleRequest(), metadata=ADMIN)
        before = status_of(service)
        write_funnel(tmp_path / "two", "two")
        service.admin.ReloadBundle(ReloadBundleRequest(), metadata=ADMIN)
        service.decisions.ChooseChannel(choose_request("second", customer="boris"), metadata=ADMIN)
        after = wait_for(service, 1)

    assert "has no manifest.json" in before.bundle_error
    assert (before.bundle_version, before.decision_count) == ("", 0)
    assert (after.bundle_error, after.decision_count) == ("", 1)
