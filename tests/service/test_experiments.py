"""Experiments as callers and operators see them: variants decide, exposures are written down once, levers act at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import LogUnusable
from models.rules import parse_rules
from service.gen.channelchoice.v1.admin_service_pb2 import (
    EXPERIMENT_STATE_PAUSED,
    EXPERIMENT_STATE_RUNNING,
    EXPERIMENT_STATE_STOPPED,
    Experiment,
    ListExperimentsRequest,
    UpdateExperimentRequest,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    AdvanceCascadeRequest,
    BatchChooseChannelRequest,
    ChooseChannelRequest,
)
from service.gen.channelchoice.v1.customer_pb2 import CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import EraseCustomerRequest
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_MODE_SHADOW, Decision
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_ORDER, OUTCOME_TYPE_UNSUBSCRIBE
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, identity, outcome
from tests.service.security import ADMIN, write_tokens
from tests.service.served import Served, refused, serve
from tests.service.test_admin import make_bundle
from training.experiments.monitor import stopper
from training.experiments.people import read_people

pytestmark = pytest.mark.usefixtures("engine")

EXPERIMENT = """
[[experiments]]
name = "order"
start_time = 2026-11-01T00:00:00Z
end_time = 2026-12-01T00:00:00Z
[[experiments.variants]]
name = "push-first"
weight = 0.5
[experiments.variants.cascade]
order = ["push", "email"]
[[experiments.variants]]
name = "email-first"
weight = 0.5
[experiments.variants.cascade]
order = ["email", "push"]
max_steps = 1
"""
FIRST = {"push-first": "push", "email-first": "email"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A service with one experiment on the rule cascade's order, whose admin methods may be called."""
    with serve(tmp_path, RULES + EXPERIMENT, tokens_file=write_tokens(tmp_path)) as served:
        yield served


def decide(service: Served, request: ChooseChannelRequest) -> Decision:
    return service.decisions.ChooseChannel(request, metadata=ADMIN).decision


def update(service: Served, **changes: object) -> Experiment:
    request = UpdateExperimentRequest(experiment="order", reason="a test", **changes)  # type: ignore[arg-type]  # fields of it
    return service.admin.UpdateExperiment(request, metadata=ADMIN).experiment


def show(service: Served) -> Experiment:
    (found,) = service.admin.ListExperiments(ListExperimentsRequest(), metadata=ADMIN).experiments
    return found


def variants(service: Served, count: int = 40) -> dict[str, str]:
    """Decide one message for each of some customers, and return their variants."""
    found = {}
    for number in range(count):
        decision = decide(service, choose_request(f"ask-{number}", customer=f"customer-{number}"))
        (assigned,) = decision.experiments
        assert decision.channel == FIRST[assigned.variant]
        assert len(decision.cascade.steps) == (2 if assigned.variant == "push-first" else 1)
        assert assigned.probability == 0.5
        found[f"customer-{number}"] = assigned.variant
    return found


def test_variants_decide_and_each_customer_is_written_down_once(service: Served) -> None:
    """A customer is decided by the rules of their variant, in every message the same; the first exposure is kept, with its probability."""
    found = variants(service)
    again = decide(service, choose_request("again", customer="customer-0", channels=["push", "email"]))

    assert [a.variant for a in again.experiments] == [found["customer-0"]]
    rows = service.rows("SELECT variant, probability FROM exposures WHERE experiment = 'order'")
    assert sorted(row[0] for row in rows) == sorted(found.values())
    assert {row[1] for row in rows} == {0.5}
    shown = show(service)
    assert {v.variant: v.customer_count for v in shown.variants} == {
        name: list(found.values()).count(name) for name in FIRST
    }
    assert (shown.state, shown.exposure, shown.layer) == (EXPERIMENT_STATE_RUNNING, 1.0, "main")


def test_only_live_decisions_expose(service: Served) -> None:
    """What sends nothing shows the variant, and exposes nobody to it."""
    for mode in (DECISION_MODE_SHADOW, DECISION_MODE_DRY_RUN):
        request = choose_request(f"mode-{mode}")
        request.mode = mode
        assert len(decide(service, request).experiments) == 1

    assert service.rows("SELECT count(*) FROM exposures") == [(0,)]


def test_pausing_acts_at_once_and_resuming_keeps_variants(service: Served) -> None:
    """While an experiment is paused everybody is decided by the file; afterwards each is in the variant of before."""
    found = variants(service)
    paused = update(service, state=EXPERIMENT_STATE_PAUSED)
    decisions = [decide(service, choose_request(f"paused-{c}", customer=c, channels=["in_app", "push"])) for c in found]
    assert paused.state == EXPERIMENT_STATE_PAUSED
    assert {(len(d.experiments), d.channel) for d in decisions} == {(0, "in_app")}

    update(service, state=EXPERIMENT_STATE_RUNNING)
    for customer, variant in found.items():
        decision = decide(service, choose_request(f"resumed-{customer}", customer=customer))
        assert [a.variant for a in decision.experiments] == [variant]
    assert [change.reason for change in show(service).changes] == ["a test", "a test"]


def test_a_stopped_experiment_stays_stopped(service: Served) -> None:
    """Stopping is for good: running it again is refused, and so is what an experiment cannot be told."""
    update(service, state=EXPERIMENT_STATE_STOPPED)

    with refused() as resumed:
        update(service, state=EXPERIMENT_STATE_RUNNING)
    assert "another name" in resumed[0].violations["state"]
    assert not decide(service, choose_request()).experiments


def test_exposure_is_changed_while_it_runs(service: Served) -> None:
    """An exposure of 0 takes nobody new, and leaves those who are in where they are."""
    found = variants(service, 5)
    assert update(service, exposure=0.0).exposure == 0.0

    assert not decide(service, choose_request("new", customer="new")).experiments
    known = decide(service, choose_request("known", customer="customer-1"))
    assert [a.variant for a in known.experiments] == [found["customer-1"]]
    assert show(service).state == EXPERIMENT_STATE_RUNNING


def test_a_cascade_ends_as_it_began(service: Served) -> None:
    """A later step is decided by the variant of the first, though the experiment was stopped between the two."""
    found = variants(service)
    customer = next(c for c, variant in found.items() if variant == "push-first")
    first = decide(service, choose_request("cascade", customer=customer))
    update(service, state=EXPERIMENT_STATE_STOPPED)
    service.clock.move(4 * HOUR)
    request = AdvanceCascadeRequest(decision_id=first.decision_id, completed_step=1)
    second = service.decisions.AdvanceCascade(request, metadata=ADMIN).decision

    assert (first.channel, second.channel) == ("push", "email")
    assert [a.variant for a in second.experiments] == ["push-first"]


def test_merged_people_keep_the_first_exposure_and_are_counted_where_they_differ(service: Served) -> None:
    """Two profiles that turn out to be one person go on in the variant seen first; where it was two, the person is mixed."""
    first = variants(service, 1)["customer-0"]
    service.clock.move(HOUR)
    found = variants(service)
    second = next(c for c in found if found[c] != first)
    service.clock.move(HOUR)
    decide(service, choose_request("link-1", customer=second, identities=[identity("joint")]))
    decide(service, choose_request("link-2", customer="customer-0", identities=[identity("joint")]))

    later = decide(service, choose_request("later", customer=second, channels=["push", "email"]))
    assert [a.variant for a in later.experiments] == [first]
    assert show(service).mixed_customer_count == 1
    assert service.rows("SELECT count(*) FROM exposures") == [(len(found) - 1,)]


def test_an_erased_customer_still_counts_but_nothing_leads_to_them(service: Served) -> None:
    """The exposure stays under the key that decisions and outcomes get; the old key is gone."""
    decide(service, choose_request(customer="gone"))
    (before,) = service.rows("SELECT customer_key FROM exposures")
    service.customers.EraseCustomer(EraseCustomerRequest(customer=CustomerRef(customer_id="gone")), metadata=ADMIN)

    ((after,),) = service.rows("SELECT customer_key FROM exposures")
    assert after != before[0]
    assert service.rows("SELECT DISTINCT customer_key FROM decisions") == [(after,)]


def test_what_an_experiment_cannot_be_told_is_refused_by_field(service: Served) -> None:
    """An unknown name, no reason, nothing to change, and a share beyond 1 are each named."""
    with refused() as unknown:
        request = UpdateExperimentRequest(experiment="none", state=EXPERIMENT_STATE_PAUSED, reason="x")
        service.admin.UpdateExperiment(request, metadata=ADMIN)
    assert unknown[0].code.name == "NOT_FOUND"
    with refused() as empty:
        service.admin.UpdateExperiment(UpdateExperimentRequest(), metadata=ADMIN)
    assert set(empty[0].violations) == {"experiment", "reason", "state"}
    with refused() as beyond:
        update(service, exposure=1.5)
    assert "[0, 1]" in beyond[0].violations["exposure"]


def test_a_variant_serves_its_own_bundle_and_waits_for_it(tmp_path: Path) -> None:
    """The variant's customers are decided by its bundle; while that is not there, nobody takes part and the status says why."""
    folder = tmp_path / "challenger"
    text = RULES + EXPERIMENT.replace('"email-first"\nweight', f'"email-first"\nbundle = "{folder}"\nweight')
    tokens = write_tokens(tmp_path)
    with serve(tmp_path, text, tokens_file=tokens) as service:
        assert not decide(service, choose_request()).experiments
        assert "email-first has no bundle" in show(service).problem
    make_bundle(folder, 0.6)
    with serve(tmp_path, text, tokens_file=tokens) as service:
        decisions = [decide(service, choose_request(f"r-{n}", customer=f"c-{n}")) for n in range(20)]
        served = {(d.experiments[0].variant, bool(d.versions.bundle)) for d in decisions}
        assert served == {("push-first", False), ("email-first", True)}
        assert show(service).problem == ""


def test_the_whole_batch_of_a_customer_is_decided_by_their_variant(service: Served) -> None:
    """Messages decided together are each decided by the variant, and expose the customer once."""
    requests = [choose_request(f"joint-{n}", customer="one", channels=["push", "email"]) for n in range(3)]
    results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests), metadata=ADMIN).results

    assert len({r.decision.experiments[0].variant for r in results}) == 1
    assert service.rows("SELECT count(*) FROM exposures") == [(1,)]


def test_the_report_reads_both_engines(service: Served) -> None:
    """What a report is made from is read from either engine: exposures, decisions and outcomes of the experiment."""
    found = variants(service)
    rules = parse_rules(RULES + EXPERIMENT)
    first = decide(service, choose_request("ask-0", customer="customer-0"))
    bought = outcome("order", OUTCOME_TYPE_ORDER, decision_id=first.decision_id, occur_time=NOW + HOUR)
    stopped = outcome("stop", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=first.decision_id, occur_time=NOW + HOUR)
    request = ReportOutcomesRequest(outcomes=[bought, stopped])
    service.outcomes.ReportOutcomes(request, metadata=ADMIN)
    service.clock.move(20 * DAY)
    decide(service, choose_request("late", customer="late"))

    people = read_people(service.database, rules.experiments[0], rules)
    assert people.exposed == {v.variant: v.customer_count for v in show(service).variants}
    assert people.figures["orders"].sum() == people.figures["unsubscribed"].sum() == 1
    assert people.figures["margin"].sum() == 900
    assert people.figures["messages"].sum() == len(found)
    assert people.open_windows == 1


def test_the_watch_stops_an_experiment_over_grpc(service: Served) -> None:
    """What the monitor stops is stopped in the service, with its reason; a server that refuses is told of with the way out."""
    stop = stopper(service.address, "admin-token", None)
    stop("order", "monitor: a guardrail is broken")

    shown = show(service)
    assert (shown.state, shown.changes[-1].reason) == (EXPERIMENT_STATE_STOPPED, "monitor: a guardrail is broken")
    with pytest.raises(LogUnusable, match="stop it with UpdateExperiment"):
        stopper(service.address, "no token", None)("order", "again")
