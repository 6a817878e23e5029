"""Metrics as Prometheus reads them: what is counted, what is looked up, and what is never in them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.errors import SettingsInvalid
from service.gen.channelchoice.v1.admin_service_pb2 import GetServingStatusRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    StreamChooseChannelRequest,
)
from service.gen.channelchoice.v1.customer_pb2 import REACHABILITY_UNREACHABLE
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_CLICKED, OUTCOME_TYPE_SENT
from tests.funnels import write_funnel
from tests.service.examples import NOW, RULES, choose_request, identity, outcome
from tests.service.served import Served, connected, refused, serve
from tests.service.test_budgets import budget, sms
from tests.service.test_settings import refusal

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A service with a budget, a bundle and metrics."""
    bundle = tmp_path / "bundle"
    write_funnel(bundle, "one", {"push": 4.0})
    rules = RULES + budget("100")
    with serve(tmp_path, rules, metrics_address="127.0.0.1:0", bundle=str(bundle)) as served:
        yield served


def page(service: Served) -> str:
    """Return what a scrape gets."""
    with urlopen(f"http://127.0.0.1:{service.app.metrics_port}/metrics", timeout=30) as answer:
        found: bytes = answer.read()
    return found.decode()


def samples(service: Served) -> Samples:
    """Return all samples of our own by name and labels, without the prefix."""
    return {
        (sample.name.removeprefix("channel_choice_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page(service))
        for sample in family.samples
        if sample.name.startswith("channel_choice_")
    }


def samples_once_told(service: Served, decisions: int) -> Samples:
    """Return all samples once so many decisions are counted, which they are after they were answered, or what there is after many looks."""
    found = samples(service)
    for _ in range(1000):
        if value(found, "decisions_total") >= decisions:
            break
        found = samples(service)
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name that have these labels."""
    return sum(
        number for (key, known), number in found.items() if key == name and labels.items() <= dict(known).items()
    )


def test_decisions_are_counted_by_what_was_decided(service: Served) -> None:
    """Each new decision is counted once, with its channel, its price and the channels that it could not use; a repetition is not."""
    service.decide(sms(1))
    service.decide(sms(1))
    quiet = sms(2)
    quiet.mode = DECISION_MODE_DRY_RUN
    service.decide(quiet)
    away = choose_request("no", customer="customer-3", channels=["email"])
    away.channels[0].reachability = REACHABILITY_UNREACHABLE
    service.decide(away)
    found = samples_once_told(service, 3)

    assert value(found, "decisions_total", verdict="send", channel="sms", mode="live") == 1
    assert value(found, "decisions_total", verdict="send", channel="sms", mode="dry_run") == 1
    assert value(found, "decisions_total") == 3
    assert value(found, "decided_spend_total", channel="sms") == pytest.approx(5.3)
    assert value(found, "suppressed_channels_total", channel="email", reason="unreachable") == 1


def test_calls_are_counted_by_code_and_timed(service: Served) -> None:
    """Unary calls, batches and streams are counted under their method, with the code that they ended with."""
    service.decide(sms(1))
    with refused():
        service.decide(choose_request(""))
    service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=[sms(2), sms(3)]))
    list(service.decisions.StreamChooseChannel(iter([StreamChooseChannelRequest(request=sms(4))])))
    found = samples_once_told(service, 4)

    def calls(method: str, code: str) -> float:
        return value(found, "calls_total", method=f"v1.ChannelChoiceService/{method}", code=code)

    assert calls("ChooseChannel", "OK") == 1
    assert calls("ChooseChannel", "INVALID_ARGUMENT") == 1
    assert calls("BatchChooseChannel", "OK") == calls("StreamChooseChannel", "OK") == 1
    timed = value(found, "call_seconds_count", method="v1.ChannelChoiceService/ChooseChannel")
    assert timed == 2
    assert value(found, "call_seconds_sum", method="v1.ChannelChoiceService/ChooseChannel") > 0
    assert value(found, "decisions_total") == 4


def test_calls_without_the_right_token_are_counted(tmp_path: Path) -> None:
    """A call that was refused before it reached a method is in the counts, so that somebody who tries is seen."""
    with serve(tmp_path, metrics_address="127.0.0.1:0") as service:
        with refused() as refusals:
            service.admin.GetServingStatus(GetServingStatusRequest())
        found = samples(service)

    assert refusals[0].code is grpc.StatusCode.PERMISSION_DENIED
    assert value(found, "calls_total", code="PERMISSION_DENIED") == 1


def test_outcomes_are_counted_by_what_became_of_them(service: Served) -> None:
    """Type and status of each outcome; one refused is counted as such."""
    decision = service.decide(sms(1))
    sent = outcome("a", OUTCOME_TYPE_SENT, decision_id=decision.decision_id)
    service.report(sent, outcome("b", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id))
    service.report(sent)
    broken = outcome("c", OUTCOME_TYPE_SENT, decision_id=decision.decision_id)
    broken.type = 999  # type: ignore[assignment]  # as a newer caller may send
    service.report(broken)
    found = samples(service)

    assert value(found, "outcomes_total", type="sent", status="accepted") == 1
    assert value(found, "outcomes_total", type="sent", status="duplicate") == 1
    assert value(found, "outcomes_total", type="clicked", status="accepted") == 1
    assert value(found, "outcomes_total", type="unspecified", status="rejected") == 1


def test_budgets_versions_and_matches_are_looked_up(service: Served) -> None:
    """What a budget has reserved and committed, what serves and since when, and how many persons were known, are as they are now."""
    decision = service.decide(sms(1))
    service.decide(sms(2))
    service.report(outcome("a", OUTCOME_TYPE_SENT, decision_id=decision.decision_id))
    service.decide(choose_request("again", customer="customer-1", channels=["push"]))
    found = samples(service)
    ((_, labels),) = [key for key in found if key[0] == "build_info"]

    assert value(found, "budget", budget="day", of="cap") == 100
    assert value(found, "budget", budget="day", of="reserved") == pytest.approx(5.3)
    assert value(found, "budget", budget="day", of="committed") == pytest.approx(5.3)
    assert dict(labels)["bundle"].startswith("one")
    assert value(found, "bundle_load_timestamp_seconds") == NOW.timestamp()
    assert value(found, "bundle_refused") == 0
    assert (value(found, "persons_total"), value(found, "matched_persons_total")) == (3, 1)
    assert value(found, "database_up") == 1


def test_a_refused_bundle_is_told(tmp_path: Path) -> None:
    """A bundle that cannot be loaded is a metric to alert on, as decisions without one are."""
    with serve(tmp_path, metrics_address="127.0.0.1:0", bundle=str(tmp_path / "none")) as service:
        service.decide(sms(1))
        found = samples_once_told(service, 1)

    assert value(found, "bundle_refused") == 1
    assert value(found, "degraded_decisions_total", cause="no_bundle") == 1


def test_without_the_database_the_rest_is_answered(service: Served) -> None:
    """Where budgets cannot be read, the answer says so and has everything else."""
    service.decide(sms(1))
    with connected(service.database) as run:
        run("ALTER TABLE budgets RENAME TO hidden")
    found = samples_once_told(service, 1)

    assert value(found, "database_up") == 0
    assert not [key for key in found if key[0] == "budget"]
    assert value(found, "decisions_total") == 1


def test_nobody_is_named(service: Served) -> None:
    """No identity, customer, campaign or request is in what is scraped."""
    service.decide(
        choose_request(
            "secret-request", customer="secret-customer", identities=[identity("secret-id")], channels=["sms"]
        )
    )

    assert "secret" not in page(service)
    assert "autumn" not in page(service)


def test_an_address_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    """A second process on the address does not start, and is told which setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsInvalid, match="metrics_address"), serve(tmp_path, metrics_address=address):
            pass


@pytest.mark.parametrize("address", ["9090", "localhost:", ":9090", "localhost:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """HOST:PORT is asked for."""
    assert "HOST:PORT" in refusal({"metrics_address": address})["metrics_address"]


def test_metrics_off_loopback_are_asked_for_in_words(tmp_path: Path) -> None:
    """Metrics have no TLS, so that an address others can reach needs allow_plaintext."""
    assert "allow_plaintext" in refusal({"metrics_address": "0.0.0.0:9090"})["metrics_address"]


def test_only_get_is_answered(service: Served) -> None:
    """The port changes nothing, whatever is sent to it."""
    with pytest.raises(HTTPError) as error:
        urlopen(f"http://127.0.0.1:{service.app.metrics_port}/metrics", data=b"x", timeout=30)

    with error.value as answer:
        assert answer.code == 405


def test_who_asks_for_none_does_not_load_the_library() -> None:
    """The composition root does not import it by itself."""
    code = "import sys, service.app; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
