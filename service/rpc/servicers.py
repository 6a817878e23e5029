"""The four services of the contract, each a thin layer over its use cases."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from google.protobuf.message import DecodeError

from models.correction import Correction
from models.decide import Decision
from models.errors import BundleError, ChannelChoiceError, InvalidInput, NotFound, Violation
from models.experiments import ExperimentState
from models.record import from_micros, to_micros
from models.rules import Rules
from service.budgets import Standing, change_amount, settle_expired, standings
from service.bundles import BundleHolder
from service.clock import Clock, Observe, ignore
from service.customers import Customers
from service.decisions import READ_TOGETHER, Answer, Decisions
from service.experiments import Experiments
from service.gen.channelchoice.v1 import admin_service_pb2 as admin_pb
from service.gen.channelchoice.v1 import admin_service_pb2_grpc as admin_grpc
from service.gen.channelchoice.v1 import channel_choice_service_pb2 as choice_pb
from service.gen.channelchoice.v1 import channel_choice_service_pb2_grpc as choice_grpc
from service.gen.channelchoice.v1 import customer_service_pb2 as customer_pb
from service.gen.channelchoice.v1 import customer_service_pb2_grpc as customer_grpc
from service.gen.channelchoice.v1 import outcome_pb2 as outcome_pb
from service.gen.channelchoice.v1 import outcome_service_pb2 as report_pb
from service.gen.channelchoice.v1 import outcome_service_pb2_grpc as outcome_grpc
from service.learning import Learner
from service.log import get_logger
from service.outcomes import Outcomes, Reported, Status
from service.requests import ChooseRequest
from service.rounds import Rounds
from service.rpc import parse
from service.rpc.answer import (
    EXPERIMENT_STATES,
    budget_message,
    customer_message,
    decision_message,
    experiment_message,
    money,
    outcome_message,
    shadow_message,
    stamp,
)
from service.rpc.errors import to_item
from service.rpc.handlers import Pool, answering, ending, streaming
from service.shadow import Shadow
from service.store.store import LEDGER, PAUSES, PauseRow, Store, Unit
from service.version import VERSION

_log = get_logger(__name__)
MAX_BATCH = 500
MAX_OUTCOMES = 1000
MAX_CUSTOMERS = 500
_EXPERIMENT_STATES: dict[int, ExperimentState | None] = {
    admin_pb.EXPERIMENT_STATE_UNSPECIFIED: None,
    **{number: state for state, number in EXPERIMENT_STATES.items()},
}
_STATUSES = {
    Status.ACCEPTED: outcome_pb.OUTCOME_STATUS_ACCEPTED,
    Status.DUPLICATE: outcome_pb.OUTCOME_STATUS_DUPLICATE,
    Status.LATE: outcome_pb.OUTCOME_STATUS_LATE,
    Status.PARKED: outcome_pb.OUTCOME_STATUS_PARKED,
}


def _check_size(field: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        problem = f"has {number} entries, 1 to {most} are allowed; split the call"
        raise InvalidInput([Violation(field=field, description=problem)])


class ChannelChoiceServicer(choice_grpc.ChannelChoiceServiceServicer):
    """Decisions."""

    def __init__(
        self,
        decisions: Decisions,
        rules: Rules,
        clock: Clock,
        pool: Pool,
        observe: Observe = ignore,
        tellers: Sequence[Callable[[Sequence[Decision]], None]] = (),
    ) -> None:
        """`tellers` are given each new decision aside, so that no answer waits for them."""
        self.pool = pool
        self._telling = ThreadPoolExecutor(1, thread_name_prefix="tell")
        self._tellers = tellers
        self._decisions = decisions
        self._observe = observe
        self._rules = rules
        self._clock = clock
        self._rounds = Rounds(self.answer_each, READ_TOGETHER)

    def close(self) -> None:
        """Wait for rounds that have begun, and tell of what was decided."""
        self._rounds.close()
        self._telling.shutdown()

    @ending
    async def ChooseChannel(self, request: bytes) -> bytes:  # type: ignore[override]  # noqa: N802  # the contract's name
        """Answer with bytes what came as bytes: a round reads and writes messages too, since those who wait for it would do so at the same time."""
        return await self._rounds.ask(request)

    def answer_each(self, bodies: Sequence[bytes]) -> list[bytes | Exception]:
        """Answer calls of ChooseChannel that came together, each as if it had come alone."""
        answers: list[bytes | Exception] = [b""] * len(bodies)
        requests, places = [], []
        for place, body in enumerate(bodies):
            try:
                requests.append(self._read(body))
                places.append(place)
            except InvalidInput as error:
                answers[place] = error
        decided = self._decisions.choose_round([request for request, _ in requests])
        for place, (_, is_full), answer in zip(places, requests, decided, strict=True):
            if isinstance(answer, ChannelChoiceError):
                answers[place] = answer
            else:
                decision = decision_message(answer, self._rules, is_full=is_full)
                response = choice_pb.ChooseChannelResponse(decision=decision, replayed=answer.is_replayed)
                answers[place] = response.SerializeToString()
        self._tell_aside([answer for answer in decided if isinstance(answer, Answer)])
        return answers

    def _read(self, body: bytes) -> tuple[ChooseRequest, bool]:
        try:
            request = choice_pb.ChooseChannelRequest.FromString(body)
        except DecodeError as error:
            problem = f"is not a ChooseChannelRequest: {error}"
            raise InvalidInput([Violation(field="request", description=problem)]) from error
        parse.show_time(self._observe, request.message, "earliest_time")
        return parse.parse_choose(request, self._rules, self._clock.now())

    @answering
    def BatchChooseChannel(  # noqa: N802  # the contract's name
        self, request: choice_pb.BatchChooseChannelRequest
    ) -> choice_pb.BatchChooseChannelResponse:
        _check_size("requests", len(request.requests), MAX_BATCH)
        self._check_ids(request.requests)
        results, answers = self._choose_all(request.requests, self._decisions.choose_all)
        self._tell_aside(answers)
        return choice_pb.BatchChooseChannelResponse(results=results)

    @streaming
    def StreamChooseChannel(  # noqa: N802  # the contract's name
        self, messages: Sequence[choice_pb.StreamChooseChannelRequest]
    ) -> list[choice_pb.StreamChooseChannelResponse]:
        requests = [message.request for message in messages]
        results, answers = self._choose_all(requests, self._decisions.choose_in_turn)
        self._tell_aside(answers)
        return [choice_pb.StreamChooseChannelResponse(result=result) for result in results]

    @answering
    def AdvanceCascade(  # noqa: N802  # the contract's name
        self, request: choice_pb.AdvanceCascadeRequest
    ) -> choice_pb.AdvanceCascadeResponse:
        parsed, is_full = parse.parse_advance(request, self._rules, self._clock.now())
        answer = self._decisions.advance(parsed)
        self._tell_aside([answer])
        decision = decision_message(answer, self._rules, is_full=is_full)
        return choice_pb.AdvanceCascadeResponse(decision=decision, replayed=answer.is_replayed)

    @answering
    def GetDecision(  # noqa: N802  # the contract's name
        self, request: choice_pb.GetDecisionRequest
    ) -> choice_pb.GetDecisionResponse:
        if not request.decision_id:
            raise InvalidInput([Violation(field="decision_id", description="is required")])
        if "\0" in request.decision_id:
            raise NotFound("decision", request.decision_id)
        steps, outcomes = self._decisions.get(request.decision_id)
        return choice_pb.GetDecisionResponse(
            steps=[decision_message(step, self._rules, is_full=True) for step in steps],
            outcomes=[outcome_message(row, self._rules) for row in outcomes],
        )

    def _check_ids(self, requests: Iterable[choice_pb.ChooseChannelRequest]) -> None:
        seen: dict[str, int] = {}
        violations = []
        for index, request in enumerate(requests):
            first = seen.setdefault(request.request_id, index)
            if first != index and request.request_id:
                problem = f"requests[{first}] has it too; give each request an id of its own"
                violations.append(Violation(field=f"requests[{index}].request_id", description=problem))
        if violations:
            raise InvalidInput(violations)

    def _tell_aside(self, answers: Iterable[Answer]) -> None:
        """Tell of new decisions, in a thread of its own."""
        if self._tellers:
            self._telling.submit(self._tell, [answer.decision for answer in answers if not answer.is_replayed])

    def _tell(self, decisions: Sequence[Decision]) -> None:
        for tell in self._tellers:
            try:
                tell(decisions)
            except Exception as error:  # the decisions were answered
                _log.error("decisions not told", kind=type(error).__name__, exc_info=error)

    def _choose_all(
        self,
        requests: Iterable[choice_pb.ChooseChannelRequest],
        choose: Callable[[Sequence[ChooseRequest]], list[Answer | ChannelChoiceError]],
    ) -> tuple[list[choice_pb.ChooseChannelResult], list[Answer]]:
        for request in requests:
            parse.show_time(self._observe, request.message, "earliest_time")
        now = self._clock.now()
        results = [choice_pb.ChooseChannelResult(request_id=request.request_id) for request in requests]
        parsed, places = [], []
        for place, request in enumerate(requests):
            try:
                parsed.append(parse.parse_choose(request, self._rules, now))
                places.append(place)
            except InvalidInput as error:
                results[place].error.CopyFrom(to_item(error))
        answers = choose([request for request, _ in parsed])
        for place, (_, is_full), answer in zip(places, parsed, answers, strict=True):
            if isinstance(answer, ChannelChoiceError):
                results[place].error.CopyFrom(to_item(answer))
            else:
                results[place].decision.CopyFrom(decision_message(answer, self._rules, is_full=is_full))
                results[place].replayed = answer.is_replayed
        return results, [answer for answer in answers if isinstance(answer, Answer)]


class OutcomeServicer(outcome_grpc.OutcomeServiceServicer):
    """Outcomes."""

    def __init__(
        self,
        outcomes: Outcomes,
        rules: Rules,
        clock: Clock,
        pool: Pool,
        observe: Observe = ignore,
        tellers: Sequence[Callable[[Sequence[tuple[int, int]]], None]] = (),
    ) -> None:
        """`tellers` are given the type and status of each outcome."""
        self.pool = pool
        self._tellers = tellers
        self._outcomes = outcomes
        self._observe = observe
        self._rules = rules
        self._clock = clock

    @answering
    def ReportOutcomes(  # noqa: N802  # the contract's name
        self, request: report_pb.ReportOutcomesRequest
    ) -> report_pb.ReportOutcomesResponse:
        _check_size("outcomes", len(request.outcomes), MAX_OUTCOMES)
        return report_pb.ReportOutcomesResponse(results=self._report(request.outcomes))

    @streaming
    def StreamOutcomes(  # noqa: N802  # the contract's name
        self, messages: Sequence[report_pb.StreamOutcomesRequest]
    ) -> list[report_pb.StreamOutcomesResponse]:
        results = self._report([message.outcome for message in messages])
        return [report_pb.StreamOutcomesResponse(result=result) for result in results]

    def _report(self, outcomes: Sequence[outcome_pb.Outcome]) -> list[outcome_pb.OutcomeResult]:
        for outcome in outcomes:
            parse.show_time(self._observe, outcome, "occur_time")
        now = self._clock.now()
        results = [outcome_pb.OutcomeResult(event_id=outcome.event_id) for outcome in outcomes]
        parsed, places = [], []
        for place, outcome in enumerate(outcomes):
            try:
                parsed.append(parse.parse_outcome(outcome, self._rules, now))
                places.append(place)
            except InvalidInput as error:
                _fill(results[place], Reported(event_id=outcome.event_id), error)
        reported = self._outcomes.report(parsed) if parsed else []
        for place, result in zip(places, reported, strict=True):
            _fill(results[place], result, result.refusal)
        for tell in self._tellers:
            tell([(outcome.type, result.status) for outcome, result in zip(outcomes, results, strict=True)])
        return results


def _fill(message: outcome_pb.OutcomeResult, reported: Reported, error: ChannelChoiceError | None) -> None:
    if error is not None:
        message.status = outcome_pb.OUTCOME_STATUS_REJECTED
        message.error.CopyFrom(to_item(error))
    elif reported.status is not None:
        message.status = _STATUSES[reported.status]


class CustomerServicer(customer_grpc.CustomerServiceServicer):
    """Customers."""

    def __init__(self, customers: Customers, rules: Rules, clock: Clock, pool: Pool) -> None:
        self.pool = pool
        self._customers = customers
        self._rules = rules
        self._clock = clock

    @answering
    def UpsertCustomers(  # noqa: N802  # the contract's name
        self, request: customer_pb.UpsertCustomersRequest
    ) -> customer_pb.UpsertCustomersResponse:
        _check_size("customers", len(request.customers), MAX_CUSTOMERS)
        answer = customer_pb.UpsertCustomersResponse()
        for customer in request.customers:
            result = answer.results.add()
            try:
                parsed = parse.parse_customer(customer, self._rules, self._clock.now())
                result.profile_id = self._customers.upsert(parsed)
            except ChannelChoiceError as error:
                result.error.CopyFrom(to_item(error))
        return answer

    @answering
    def GetCustomer(  # noqa: N802  # the contract's name
        self, request: customer_pb.GetCustomerRequest
    ) -> customer_pb.GetCustomerResponse:
        person = parse.parse_person("customer", request.customer, self._rules, self._clock.now())
        key, profile, count = self._customers.get(person)
        return customer_pb.GetCustomerResponse(customer=customer_message(profile), profile_id=key, identity_count=count)

    @answering
    def EraseCustomer(  # noqa: N802  # the contract's name
        self, request: customer_pb.EraseCustomerRequest
    ) -> customer_pb.EraseCustomerResponse:
        person = parse.parse_person("customer", request.customer, self._rules, self._clock.now())
        return customer_pb.EraseCustomerResponse(erased_row_count=self._customers.erase(person))


class AdminServicer(admin_grpc.AdminServiceServicer):
    """Operators' levers."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        clock: Clock,
        customers: Customers,
        bundles: BundleHolder,
        decisions: Decisions,
        learner: Learner,
        experiments: Experiments,
        start_time: datetime,
        pool: Pool,
        shadow: Shadow | None = None,
    ) -> None:
        self.pool = pool
        self._shadow = shadow
        self._store = store
        self._rules = rules
        self._clock = clock
        self._customers = customers
        self._bundles = bundles
        self._decisions = decisions
        self._learner = learner
        self._experiments = experiments
        self._start_time = start_time

    @answering
    def GetServingStatus(  # noqa: N802  # the contract's name
        self, request: admin_pb.GetServingStatusRequest
    ) -> admin_pb.GetServingStatusResponse:
        serving, matches = self._bundles.serving, self._customers.matches
        bundle = None if serving is None else serving.bundle
        answer = admin_pb.GetServingStatusResponse(
            service_version=VERSION,
            rules_version=self._rules.name,
            bundle_version=bundle.version if bundle else "",
            bundle_source=self._bundles.source,
            bundle_error=self._bundles.error,
            paused_channels=[_pause(row) for row in self._store.read(lambda reader: reader.list_pauses())],
            start_time=stamp(self._start_time),
            decision_count=self._decisions.count,
            exploration_cost=money(self._decisions.exploration_cost_micros, self._rules),
            person_count=matches.persons,
            matched_person_count=matches.matched,
            merged_profile_count=matches.merged,
            contradicting_profile_count=matches.contradicting,
        )
        if serving is not None:
            version = serving.bundle.version
            answer.corrections.extend(map(_correction, self._learner.corrections(version, self._clock.now())))
            answer.bundle_load_time.CopyFrom(stamp(serving.load_time))
        if self._shadow is not None:
            answer.shadow.CopyFrom(shadow_message(self._shadow, self._rules))
        return answer

    @answering
    def ReloadBundle(  # noqa: N802  # the contract's name
        self, request: admin_pb.ReloadBundleRequest
    ) -> admin_pb.ReloadBundleResponse:
        if self._shadow is not None:
            with contextlib.suppress(
                BundleError
            ):  # it is in the status and the log; the champion is loaded all the same
                self._shadow.challenger.load()
        is_changed = self._bundles.load()
        bundle = self._bundles.current
        return admin_pb.ReloadBundleResponse(bundle_version=bundle.version if bundle else "", is_changed=is_changed)

    @answering
    def GetBudgets(  # noqa: N802  # the contract's name
        self, request: admin_pb.GetBudgetsRequest
    ) -> admin_pb.GetBudgetsResponse:
        check = parse.Checker(self._rules, self._clock.now())
        channel = check.channel("channel", request.channel) if request.channel else ""
        campaign = check.text("campaign", request.campaign, 128)
        check.finish()
        now = self._clock.now()

        def unit(work: Unit) -> list[Standing]:
            settle_expired(work, self._rules, to_micros(now))
            return standings(work, self._rules, now)

        return admin_pb.GetBudgetsResponse(
            budgets=[
                budget_message(standing, self._rules)
                for standing in sorted(self._store.write(unit, [LEDGER]), key=lambda s: (s.budget.name, s.period.start))
                if channel in ("", standing.budget.channel) and campaign in ("", standing.budget.campaign)
            ]
        )

    @answering
    def SetBudget(  # noqa: N802  # the contract's name
        self, request: admin_pb.SetBudgetRequest
    ) -> admin_pb.SetBudgetResponse:
        check = parse.Checker(self._rules, self._clock.now())
        name = check.text("budget", request.budget, 64, is_required=True)
        reason = check.text("reason", request.reason, 512, is_required=True)
        cap = check.money("cap", request, "cap")
        if cap == 0:
            check.refuse("cap.micros", "is 0; to spend nothing pause the channel")
        check.finish()
        now = self._clock.now()
        standing = self._store.write(lambda work: change_amount(work, self._rules, name, cap, reason, now), [LEDGER])
        _log.info("budget changed", budget=name, cap_micros=standing.budget.amount, reason=reason)
        return admin_pb.SetBudgetResponse(budget=budget_message(standing, self._rules))

    @answering
    def PauseChannel(  # noqa: N802  # the contract's name
        self, request: admin_pb.PauseChannelRequest
    ) -> admin_pb.PauseChannelResponse:
        check = parse.Checker(self._rules, self._clock.now())
        channel = check.channel("channel", request.channel)
        reason = check.text("reason", request.reason, 512, is_required=True)
        check.finish()
        row = PauseRow(channel=channel, pause_time=to_micros(self._clock.now()), reason=reason)
        self._store.write(lambda unit: unit.insert_pause(row), [PAUSES])
        _log.info("channel paused", channel=channel)
        return admin_pb.PauseChannelResponse(paused_channel=_pause(row))

    @answering
    def ResumeChannel(  # noqa: N802  # the contract's name
        self, request: admin_pb.ResumeChannelRequest
    ) -> admin_pb.ResumeChannelResponse:
        check = parse.Checker(self._rules, self._clock.now())
        channel = check.channel("channel", request.channel)
        check.finish()
        was_paused = self._store.write(lambda unit: unit.delete_pause(channel), [PAUSES])
        _log.info("channel resumed", channel=channel)
        return admin_pb.ResumeChannelResponse(was_paused=was_paused)

    @answering
    def ListExperiments(  # noqa: N802  # the contract's name
        self, request: admin_pb.ListExperimentsRequest
    ) -> admin_pb.ListExperimentsResponse:
        check = parse.Checker(self._rules, self._clock.now())
        name = check.text("experiment", request.experiment, 64)
        check.finish()
        return admin_pb.ListExperimentsResponse(experiments=map(experiment_message, self._experiments.list(name)))

    @answering
    def UpdateExperiment(  # noqa: N802  # the contract's name
        self, request: admin_pb.UpdateExperimentRequest
    ) -> admin_pb.UpdateExperimentResponse:
        check = parse.Checker(self._rules, self._clock.now())
        name = check.text("experiment", request.experiment, 64, is_required=True)
        reason = check.text("reason", request.reason, 512, is_required=True)
        state = check.choice("state", admin_pb.ExperimentState, _EXPERIMENT_STATES, request.state, None)
        exposure = request.exposure if request.HasField("exposure") else None
        if exposure is not None and not 0 <= exposure <= 1:
            check.refuse("exposure", f"must be in [0, 1], it is {exposure:g}")
        if state is None and exposure is None:
            check.refuse("state", "neither state nor exposure is given; give what is to change")
        check.finish()
        found = self._experiments.update(name, state, exposure, reason)
        _log.info("experiment changed", experiment=name, state=found.state, exposure=found.exposure, reason=reason)
        return admin_pb.UpdateExperimentResponse(experiment=experiment_message(found))


def _correction(found: Correction) -> admin_pb.Correction:
    return admin_pb.Correction(
        stage=found.stage,
        channel=found.channel,
        factor=found.factor.value,
        deviation=found.factor.deviation,
        observed=found.observed,
        expected=found.expected,
    )


def _pause(row: PauseRow) -> admin_pb.PausedChannel:
    return admin_pb.PausedChannel(channel=row.channel, pause_time=stamp(from_micros(row.pause_time)), reason=row.reason)
