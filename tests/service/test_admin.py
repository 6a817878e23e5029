"""AdminService and the bundle that serves: pauses, status, reloading, and service without a good bundle."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import lightgbm
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from models.bundle import Description, write_bundle
from models.features import NO_SEND, Column
from service.gen.channelchoice.v1.admin_service_pb2 import (
    GetServingStatusRequest,
    GetServingStatusResponse,
    PauseChannelRequest,
    ReloadBundleRequest,
    ReloadBundleResponse,
    ResumeChannelRequest,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import Customer, CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import UpsertCustomersRequest
from service.gen.channelchoice.v1.decision_pb2 import DEGRADED_CAUSE_NO_BUNDLE, VERDICT_DO_NOT_SEND, Decision
from service.version import VERSION
from tests.service.examples import HOUR, NOW, choose_request, identity, moment_of, rubles
from tests.service.security import ADMIN, write_tokens
from tests.service.served import Served, refused, serve
from tests.service.test_choose import reasons

pytestmark = pytest.mark.usefixtures("engine")

CHANNELS = (NO_SEND, "in_app", "push", "email", "viber", "sms", "vk")


@pytest.fixture(scope="module")
def good_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one split: whoever gets an SMS orders in 60 % of cases, everybody else in 10 %."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "good", 0.6)


def make_bundle(folder: Path, sms_share: float) -> Path:
    codes = np.tile(np.arange(len(CHANNELS), dtype=np.float64), 200)
    share = np.where(codes == CHANNELS.index("sms"), sms_share, 0.1)
    ordered = np.arange(len(codes)) // len(CHANNELS) < share * 200
    data = lightgbm.Dataset(codes.reshape(-1, 1), ordered, params={"verbose": -1, "min_data_in_leaf": 20})
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "learning_rate": 1.0, "num_leaves": 3}
    model = lightgbm.train(parameters, data, num_boost_round=10)
    description = Description(
        columns=(Column(name="channel", kind="category", categories=CHANNELS),),
        calibration_slope=1.0,
        calibration_intercept=0.0,
        unsubscribe_rates={},
    )
    write_bundle(folder, "test", description, model.model_to_string(), codes[: len(CHANNELS)].reshape(-1, 1))
    return folder


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Served]:
    """A service whose admin methods may be called with ADMIN."""
    with serve(tmp_path, tokens_file=write_tokens(tmp_path)) as served:
        yield served


def status_of(service: Served) -> GetServingStatusResponse:
    return service.admin.GetServingStatus(GetServingStatusRequest(), metadata=ADMIN)


def reload(service: Served) -> ReloadBundleResponse:
    return service.admin.ReloadBundle(ReloadBundleRequest(), metadata=ADMIN)


def decide(service: Served, request: ChooseChannelRequest) -> Decision:
    return service.decisions.ChooseChannel(request, metadata=ADMIN).decision


def test_the_status_tells_what_serves_and_since_when(admin: Served) -> None:
    """GetServingStatus names versions and counts decisions; a replayed answer is not one more."""
    admin.clock.move(HOUR)
    for request_id in ("one", "two", "two"):
        decide(admin, choose_request(request_id))

    status = status_of(admin)

    assert status.service_version == VERSION
    assert status.rules_version.startswith("test+")
    assert (status.bundle_version, status.bundle_error) == ("", "")
    assert not status.HasField("bundle_load_time")
    assert moment_of(status.start_time) == NOW
    assert status.decision_count == 2
    assert status.exploration_cost == rubles(0)


def test_the_status_tells_the_match_rate(admin: Served) -> None:
    """The status counts persons asked for, those of whom an identity was known, and profiles merged into others."""
    a, b = (CustomerRef(identities=[identity(f"{name}@example.org")]) for name in "ab")
    for ref in (a, b, a, CustomerRef(identities=[*a.identities, *b.identities])):
        admin.customers.UpsertCustomers(UpsertCustomersRequest(customers=[Customer(customer=ref)]), metadata=ADMIN)

    status = status_of(admin)

    assert (status.person_count, status.matched_person_count, status.merged_profile_count) == (4, 2, 1)
    assert status.contradicting_profile_count == 0


def test_profiles_that_contradict_each_other_are_counted(admin: Served) -> None:
    """Two profiles of different zones that turn out to be one are counted; where only one of them knows a zone, they agree."""
    people = {"a": "Europe/Moscow", "b": "Asia/Omsk", "c": ""}
    customers = [Customer(customer=CustomerRef(customer_id=name, time_zone=zone)) for name, zone in people.items()]
    admin.customers.UpsertCustomers(UpsertCustomersRequest(customers=customers), metadata=ADMIN)
    for number, (name, mail) in enumerate((("a", "m"), ("b", "m"), ("a", "n"), ("c", "n"))):
        request = choose_request(f"link-{number}", customer=name, identities=[identity(mail)])
        decide(admin, request)

    status = status_of(admin)
    assert (status.merged_profile_count, status.contradicting_profile_count) == (2, 1)


def test_the_status_tells_what_exploring_costs_a_thousand_decisions(tmp_path: Path, good_bundle: Path) -> None:
    """The status has a thousand times the mean of the costs that the answers tell of, a replayed answer not counted again."""
    with serve(tmp_path, bundle=str(good_bundle), tokens_file=write_tokens(tmp_path)) as service:
        asked = {"one": ("push", "sms"), "two": ("push", "email", "sms", "viber")}
        decisions = [
            decide(service, choose_request(name, customer=name, channels=asked[name])) for name in ("one", "two", "two")
        ]
        status = status_of(service)

    sentences = [s for decision in decisions[:2] for s in decision.explanation.sentences if "Exploring" in s]
    costs = [float(sentence.removeprefix("Exploring is expected to cost ").split()[0]) for sentence in sentences]
    assert len(costs) == 2
    assert status.exploration_cost.micros / 1e6 == pytest.approx(1000 * sum(costs) / 2, abs=0.1)
    assert status.exploration_cost.currency == "RUB"


def test_a_paused_channel_is_closed_for_all_until_it_is_resumed(admin: Served) -> None:
    """A pause suppresses the channel at once, shows in the status, and ends at once."""
    pause = PauseChannelRequest(channel="push", reason="provider is down")
    paused = admin.admin.PauseChannel(pause, metadata=ADMIN).paused_channel
    closed = decide(admin, choose_request("closed", customer="one"))
    listed = list(status_of(admin).paused_channels)
    was_paused = admin.admin.ResumeChannel(ResumeChannelRequest(channel="push"), metadata=ADMIN).was_paused
    opened = decide(admin, choose_request("opened", customer="two"))

    assert (paused.channel, paused.reason, moment_of(paused.pause_time)) == ("push", "provider is down", NOW)
    assert (closed.channel, reasons(closed)) == ("email", {"push": {"CHANNEL_PAUSED"}})
    assert listed == [paused]
    assert was_paused
    assert opened.channel == "push"
    assert list(status_of(admin).paused_channels) == []


def test_a_second_pause_replaces_the_first(admin: Served) -> None:
    """Pausing again keeps the newest reason, and one resume ends it."""
    for reason in ("first", "second"):
        admin.admin.PauseChannel(PauseChannelRequest(channel="push", reason=reason), metadata=ADMIN)

    assert [paused.reason for paused in status_of(admin).paused_channels] == ["second"]
    assert admin.admin.ResumeChannel(ResumeChannelRequest(channel="push"), metadata=ADMIN).was_paused
    assert not admin.admin.ResumeChannel(ResumeChannelRequest(channel="push"), metadata=ADMIN).was_paused


def test_a_pause_outlives_the_process(tmp_path: Path) -> None:
    """A pause is kept in the store, so that a restart does not open a channel that an operator closed."""
    tokens = write_tokens(tmp_path)
    with serve(tmp_path, tokens_file=tokens) as service:
        service.admin.PauseChannel(PauseChannelRequest(channel="push", reason="down"), metadata=ADMIN)
    with serve(tmp_path, tokens_file=tokens) as service:
        assert reasons(decide(service, choose_request(channels=["push"]))) == {"push": {"CHANNEL_PAUSED"}}


def test_bad_pauses_are_refused_by_field(admin: Served) -> None:
    """Pause and resume name unknown channels and a missing or endless reason."""
    with refused() as empty:
        admin.admin.PauseChannel(PauseChannelRequest(), metadata=ADMIN)
    with refused() as endless:
        admin.admin.PauseChannel(PauseChannelRequest(channel="push", reason="x" * 513), metadata=ADMIN)
    with refused() as resumed:
        admin.admin.ResumeChannel(ResumeChannelRequest(channel="pigeon"), metadata=ADMIN)

    assert set(empty[0].violations) == {"channel", "reason"}
    assert set(endless[0].violations) == {"reason"}
    assert set(resumed[0].violations) == {"channel"}


def test_with_a_bundle_the_policy_draws_by_value(tmp_path: Path, good_bundle: Path) -> None:
    """A bundle makes decisions by value with a propensity that is the distribution's, and nothing is degraded."""
    with serve(tmp_path, bundle=str(good_bundle), tokens_file=write_tokens(tmp_path)) as service:
        decision = decide(service, choose_request())
        status = status_of(service)

    drawn = [a for a in decision.actions if (a.channel, a.send_time) == (decision.channel, decision.send_time)]
    assert list(decision.degraded) == []
    assert decision.versions.policy == "greedy_floor"
    assert decision.versions.bundle == status.bundle_version != ""
    assert moment_of(status.bundle_load_time) == NOW
    assert [action.propensity for action in drawn] == [decision.propensity]
    assert sum(action.propensity for action in decision.actions) == pytest.approx(1.0)
    assert {action.channel for action in decision.actions} == {"", "push", "email", "sms"}
    sms = max((a for a in decision.actions if a.channel == "sms"), key=lambda action: action.net_value.micros)
    assert sms.uplift == pytest.approx(0.5, abs=0.1)


def test_a_paid_channel_that_earns_less_than_it_costs_is_suppressed(tmp_path: Path, good_bundle: Path) -> None:
    """With a bundle, a dear send is PRICE_ABOVE_VALUE; with nothing else to send, no send is drawn."""
    request = choose_request(channels=["sms"])
    request.message.order_margin.CopyFrom(rubles(1))
    with serve(tmp_path, bundle=str(good_bundle)) as service:
        decision = service.decide(request)

    assert decision.verdict == VERDICT_DO_NOT_SEND
    assert reasons(decision) == {"sms": {"PRICE_ABOVE_VALUE"}}


def test_a_decision_with_a_bundle_is_read_back_as_answered(tmp_path: Path, good_bundle: Path) -> None:
    """GetDecision gives back every number of the distribution to the bit."""
    with serve(tmp_path, bundle=str(good_bundle)) as service:
        answered = service.decide(choose_request())

        assert list(service.get(answered.decision_id).steps) == [answered]


def remove_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def change_a_byte(bundle: Path) -> None:
    model = bundle / "response.txt"
    model.write_text(model.read_text().replace("leaf_value=", "leaf_value=1", 1))


def remove_a_file(bundle: Path) -> None:
    (bundle / "golden.json").unlink()


def break_the_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{")


def raise_the_format(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (shutil.rmtree, "BUNDLE_MISSING", "has no manifest.json"),
        (remove_manifest, "BUNDLE_MISSING", "has no manifest.json"),
        (change_a_byte, "BUNDLE_CORRUPT", "sha256 of response.txt"),
        (remove_a_file, "BUNDLE_CORRUPT", "golden.json is missing"),
        (break_the_manifest, "BUNDLE_CORRUPT", "is not a manifest"),
        (raise_the_format, "BUNDLE_INCOMPATIBLE", "has format 99"),
    ],
)
def test_a_bad_bundle_leaves_the_rule_cascade_serving(
    tmp_path: Path, good_bundle: Path, damage: Callable[[Path], None], reason: str, message: str
) -> None:
    """With a bundle that does not verify the service starts, decides by rules, and its status says what is wrong."""
    bundle = Path(shutil.copytree(good_bundle, tmp_path / "bundle"))
    damage(bundle)
    with serve(tmp_path, bundle=str(bundle), tokens_file=write_tokens(tmp_path)) as service:
        decision = decide(service, choose_request())
        status = status_of(service)
        with refused() as refusal:
            reload(service)

    assert [degraded.cause for degraded in decision.degraded] == [DEGRADED_CAUSE_NO_BUNDLE]
    assert decision.channel == "push"
    assert status.bundle_version == ""
    assert status.bundle_source == str(bundle)
    assert message in status.bundle_error
    assert (refusal[0].code, refusal[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert refusal[0].metadata["source"] == str(bundle)


def test_an_alias_without_a_registry_leaves_the_rule_cascade_serving(tmp_path: Path) -> None:
    """An alias whose registry file is not there yet is no reason not to serve."""
    source, registry = "models:/choice@champion", f"sqlite:///{tmp_path / 'none.db'}"
    with serve(tmp_path, bundle=source, mlflow_uri=registry, tokens_file=write_tokens(tmp_path)) as service:
        assert decide(service, choose_request()).channel == "push"
        assert "there is no registry file" in status_of(service).bundle_error


def test_a_mended_bundle_serves_after_reload(tmp_path: Path, good_bundle: Path) -> None:
    """ReloadBundle takes the bundle in once it is there, clears the error, and a second call changes nothing."""
    bundle = tmp_path / "bundle"
    with serve(tmp_path, bundle=str(bundle), tokens_file=write_tokens(tmp_path)) as service:
        shutil.copytree(good_bundle, bundle)

        first, second = reload(service), reload(service)
        status = status_of(service)

    assert (first.is_changed, second.is_changed) == (True, False)
    assert first.bundle_version == second.bundle_version == status.bundle_version
    assert status.bundle_error == ""


def test_a_bad_new_bundle_leaves_the_old_one_serving(tmp_path: Path, good_bundle: Path) -> None:
    """A reload that fails is told to its caller and in the status, while decisions go on as before."""
    bundle = Path(shutil.copytree(good_bundle, tmp_path / "bundle"))
    with serve(tmp_path, bundle=str(bundle), tokens_file=write_tokens(tmp_path)) as service:
        before = decide(service, choose_request("before"))
        change_a_byte(bundle)
        with refused() as refusal:
            reload(service)
        after = decide(service, choose_request("after"))
        status = status_of(service)

    assert refusal[0].reason == "BUNDLE_CORRUPT"
    assert list(after.degraded) == []
    assert after.versions.bundle == before.versions.bundle == status.bundle_version
    assert "sha256" in status.bundle_error


def health_of_bundle(service: Served) -> str:
    stub: Any = HealthStub(service.grpc_channel)  # its type stubs lack the methods
    answer = stub.Check(HealthCheckRequest(service="bundle"))
    return HealthCheckResponse.ServingStatus.Name(answer.status)


def test_health_tells_of_the_bundle_apart(tmp_path: Path, good_bundle: Path) -> None:
    """Health of "bundle" is NOT_SERVING while the last load failed, and SERVING again with the next good one; the service itself serves throughout."""
    bundle = Path(shutil.copytree(good_bundle, tmp_path / "bundle"))
    with serve(tmp_path, bundle=str(bundle), tokens_file=write_tokens(tmp_path)) as service:
        told = [health_of_bundle(service)]
        change_a_byte(bundle)
        with refused():
            reload(service)
        told.append(health_of_bundle(service))
        stub: Any = HealthStub(service.grpc_channel)  # as above
        whole = stub.Check(HealthCheckRequest()).status
        shutil.rmtree(bundle)
        shutil.copytree(good_bundle, bundle)
        reload(service)
        told.append(health_of_bundle(service))

    assert told == ["SERVING", "NOT_SERVING", "SERVING"]
    assert whole == HealthCheckResponse.SERVING


def test_a_bundle_slower_than_the_limit_is_refused(tmp_path: Path, good_bundle: Path) -> None:
    """A bundle that cannot score its golden rows within `bundle_limit_ms` does not serve; the status and the refusal say how slow it is."""
    with serve(
        tmp_path, bundle=str(good_bundle), bundle_limit_ms=0.000001, tokens_file=write_tokens(tmp_path)
    ) as service:
        with refused() as refusal:
            reload(service)
        status, told = status_of(service), health_of_bundle(service)

    assert refusal[0].reason == "BUNDLE_SLOW"
    assert "to score its golden rows, 0 ms are allowed" in status.bundle_error
    assert (status.bundle_version, told) == ("", "NOT_SERVING")


def test_another_bundle_is_swapped_in(tmp_path: Path, good_bundle: Path) -> None:
    """After a reload new decisions name the new bundle; what was decided before is answered as it was."""
    bundle = Path(shutil.copytree(good_bundle, tmp_path / "bundle"))
    with serve(tmp_path, bundle=str(bundle), tokens_file=write_tokens(tmp_path)) as service:
        before = decide(service, choose_request("before"))
        shutil.rmtree(bundle)
        make_bundle(bundle, 0.3)
        answer = reload(service)
        after = decide(service, choose_request("after", customer="other"))
        replayed = decide(service, choose_request("before"))

    assert answer.is_changed
    assert after.versions.bundle == answer.bundle_version != before.versions.bundle
    assert replayed == before
