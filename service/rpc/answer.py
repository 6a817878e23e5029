"""From decisions to the contract's messages."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from models.cascade import ADVANCE_ON, Event, stop_events
from models.context import CascadeEnd, DegradedCause, Mode, Reason, Verdict
from models.experiments import ExperimentState, rules_under
from models.explain import explain
from models.policies import PER_DECISIONS
from models.record import from_micros
from models.rules import EVERY, Rules
from service.budgets import Standing, reservation_of
from service.decisions import Answer
from service.experiments import RunExperiment
from service.gen.channelchoice.v1 import admin_service_pb2 as admin_pb
from service.gen.channelchoice.v1 import customer_pb2 as customer_pb
from service.gen.channelchoice.v1 import decision_pb2 as pb
from service.gen.channelchoice.v1 import message_pb2 as message_pb
from service.gen.channelchoice.v1 import money_pb2 as money_pb
from service.gen.channelchoice.v1 import outcome_pb2 as outcome_pb
from service.rpc.actions import add_actions
from service.shadow import Shadow
from service.store.profile import Profile
from service.store.store import OutcomeRow

_VERDICTS = {v: pb.Verdict.Value(f"VERDICT_{v.name}") for v in Verdict}
_REASONS = {r: pb.SuppressionReason.Value(f"SUPPRESSION_REASON_{r.name}") for r in Reason}
_MODES = {m: pb.DecisionMode.Value(f"DECISION_MODE_{m.name}") for m in Mode}
_CAUSES = {c: pb.DegradedCause.Value(f"DEGRADED_CAUSE_{c.name}") for c in DegradedCause}
_EVENTS = {e: pb.CascadeEvent.Value(f"CASCADE_EVENT_{e.name}") for e in Event}
_ENDS = {e: pb.CascadeEnd.Value(f"CASCADE_END_{e.name}") for e in CascadeEnd}
EXPERIMENT_STATES = {s: admin_pb.ExperimentState.Value(f"EXPERIMENT_STATE_{s.name}") for s in ExperimentState}
_CATEGORIES = {
    "marketing": message_pb.MESSAGE_CATEGORY_MARKETING,
    "service": message_pb.MESSAGE_CATEGORY_SERVICE,
    "transactional": message_pb.MESSAGE_CATEGORY_TRANSACTIONAL,
}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(moment: datetime) -> Timestamp:
    """Return the contract's form of a moment; `Timestamp.FromDatetime` does the same in three times the time."""
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def decision_message(answer: Answer, rules: Rules, *, is_full: bool) -> pb.Decision:
    """Return a decision as the contract has it, with actions and explanation where all is asked for."""
    decision = answer.decision
    context, choice = decision.context, decision.choice
    rules = rules_under(rules, context.experiments)
    message = pb.Decision(
        decision_id=context.decision_id,
        request_id=answer.request_id,
        step=context.step,
        verdict=_VERDICTS[choice.verdict],
        propensity=choice.propensity,
        trainable=answer.trainable,
        decide_time=stamp(context.decide_time),
        mode=_MODES[context.mode],
        category=_CATEGORIES[context.message.category],
        versions=pb.Versions(
            policy=choice.policy, bundle=choice.bundle_version, rules=choice.rules_name, service=choice.service_version
        ),
        suppressed=[
            pb.SuppressedChannel(
                channel=s.channel,
                reason=_REASONS[s.reason],
                detail=s.detail,
                retry_time=stamp(s.retry_time) if s.retry_time else None,
            )
            for s in choice.suppressed
        ],
        degraded=[pb.Degraded(cause=_CAUSES[d.cause], detail=d.detail) for d in choice.degraded],
        retry_time=stamp(choice.retry_time) if choice.retry_time else None,
        experiments=[
            pb.ExperimentAssignment(experiment=a.experiment, variant=a.variant, probability=a.probability)
            for a in context.experiments
        ],
    )
    if choice.verdict is Verdict.SEND and choice.action is not None and choice.slot is not None:
        message.channel = choice.action.channel
        message.send_time.CopyFrom(stamp(choice.slot.start))
        message.send_window_end_time.CopyFrom(stamp(choice.slot.end))
        message.price.CopyFrom(money(choice.price_micros, rules))
        message.cascade.CopyFrom(_cascade(answer, rules))
        reserved = reservation_of(decision)
        if reserved is not None:
            message.reservation.reservation_id = reserved.reservation_id
            message.reservation.amount.CopyFrom(money(reserved.amount_micros, rules))
            message.reservation.expire_time.CopyFrom(stamp(reserved.expire_time))
    elif choice.cascade_end is not None:
        message.cascade.end = _ENDS[choice.cascade_end]
    if is_full:
        if decision.distribution is not None:
            add_actions(message, decision.distribution.table, decision.distribution.probabilities, rules.currency)
            message.explanation.free_only_value.CopyFrom(money(choice.free_only_micros, rules))
        message.explanation.sentences.extend(explain(decision, rules.currency))
    return message


def _cascade(answer: Answer, rules: Rules) -> pb.Cascade:
    steps = answer.decision.choice.steps
    stops = [_EVENTS[event] for event in stop_events(rules)]
    found = pb.Cascade()
    for index, step in enumerate(steps):
        is_last = index == len(steps) - 1
        added = found.steps.add(
            step=step.step,
            channel=step.channel,
            not_before_time=stamp(step.not_before),
            advance_on=[] if is_last else [_EVENTS[event] for event in ADVANCE_ON],
            stop_on=stops,
            price=money(step.price_micros, rules),
        )
        added.wait.FromTimedelta(step.wait)
    if len(steps) > 1:
        advance_time = steps[0].not_before + steps[0].wait
        found.advance_time.CopyFrom(stamp(advance_time))
        slot, ttl = answer.decision.choice.slot, rules.channels[steps[0].channel].delivery_ttl
        if slot is not None and ttl is not None and slot.end + ttl < advance_time:
            found.delivery_deadline_time.CopyFrom(stamp(slot.end + ttl))
    return found


def money(micros: float, rules: Rules) -> money_pb.Money:
    """Return an amount in the rules' currency, rounded to whole micros."""
    return money_pb.Money(micros=round(float(micros)), currency=rules.currency)


def budget_message(standing: Standing, rules: Rules) -> admin_pb.Budget:
    """Return a budget in its period as the contract has it."""
    budget = standing.budget
    return admin_pb.Budget(
        budget=budget.name,
        channel="" if budget.channel == EVERY else budget.channel,
        campaign="" if budget.campaign == EVERY else budget.campaign,
        period_start_time=stamp(standing.period.start),
        period_end_time=stamp(standing.period.end),
        cap=money(budget.amount, rules),
        reserved=money(standing.spending.reserved_micros, rules),
        committed=money(standing.spending.committed_micros, rules),
        shadow_price=standing.shadow_price,
        file_cap=money(standing.file_micros, rules),
        leased=money(standing.leased_micros, rules),
    )


def outcome_message(row: OutcomeRow, rules: Rules) -> outcome_pb.Outcome:
    """Return a stored outcome as the contract has it."""
    found = outcome_pb.Outcome(
        event_id=row.event_id,
        decision_id=row.decision_id,
        step=row.step,
        type=outcome_pb.OutcomeType.Value(f"OUTCOME_TYPE_{row.type.upper()}"),
        occur_time=stamp(from_micros(row.occur_time)),
        machine_generated=row.machine_generated,
        value=None if row.value_micros is None else money(row.value_micros, rules),
        actual_cost=None if row.cost_micros is None else money(row.cost_micros, rules),
        revenue=None if row.revenue_micros is None else money(row.revenue_micros, rules),
    )
    if row.csat is not None:
        found.survey.csat = row.csat
    if row.nps is not None:
        found.survey.nps = row.nps
    return found


def customer_message(profile: Profile) -> customer_pb.Customer:
    """Return a stored profile as the contract has it."""
    found = customer_pb.Customer(
        customer=customer_pb.CustomerRef(time_zone=profile.time_zone, locale=profile.locale, country=profile.country)
    )
    for name, value in profile.features.items():
        feature = found.customer.features[name]
        if isinstance(value, bool):
            feature.flag = value
        elif isinstance(value, str):
            feature.text = value
        else:
            feature.number = value
    for channel, said in sorted(profile.consents.items()):
        state = customer_pb.CONSENT_STATE_GRANTED if said.state == "granted" else customer_pb.CONSENT_STATE_DENIED
        found.consents.add(channel=channel, state=state, evidence=said.evidence, consent_time=stamp(said.consent_time))
    for channel, reach in sorted(profile.reachability.items()):
        is_reached = reach == "reachable"
        state_of = customer_pb.REACHABILITY_REACHABLE if is_reached else customer_pb.REACHABILITY_UNREACHABLE
        found.reachability.add(channel=channel, state=state_of)
    return found


def experiment_message(found: RunExperiment) -> admin_pb.Experiment:
    """Return an experiment as the contract has it."""
    experiment = found.experiment
    return admin_pb.Experiment(
        experiment=experiment.name,
        state=EXPERIMENT_STATES[found.state],
        exposure=found.exposure,
        start_time=stamp(experiment.start_time),
        end_time=stamp(experiment.end_time),
        layer=experiment.layer,
        variants=[
            admin_pb.ExperimentVariant(
                variant=variant.name, weight=variant.weight, customer_count=found.counts.get(variant.name, 0)
            )
            for variant in experiment.variants
        ],
        mixed_customer_count=found.mixed,
        changes=[
            admin_pb.ExperimentChange(
                change_time=stamp(from_micros(row.change_time)),
                state=EXPERIMENT_STATES[ExperimentState(row.state)],
                exposure=experiment.exposure if row.exposure is None else row.exposure,
                reason=row.reason,
            )
            for row in found.changes
        ],
        problem=found.problem,
    )


def shadow_message(shadow: Shadow, rules: Rules) -> admin_pb.ShadowComparison:
    """Return how the challenger does beside the champion as the contract has it."""
    serving, found = shadow.challenger.serving, shadow.compared()
    message = admin_pb.ShadowComparison(bundle_source=shadow.challenger.source, bundle_error=shadow.challenger.error)
    if serving is not None:
        message.bundle_version = serving.bundle.version
        message.bundle_load_time.CopyFrom(stamp(serving.load_time))
    if found is not None:
        sums = found.sums
        message.decision_count = sums.count
        message.dropped_count = found.dropped
        message.failed_count = found.failed
        message.same_action_share = sums.mean("same")
        message.agreement = sums.mean("agreement")
        message.difference_by_champion.CopyFrom(money(PER_DECISIONS * sums.mean("by_champion"), rules))
        message.difference_by_champion_error.CopyFrom(money(PER_DECISIONS * sums.error("by_champion"), rules))
        message.difference_by_challenger.CopyFrom(money(PER_DECISIONS * sums.mean("by_challenger"), rules))
        message.difference_by_challenger_error.CopyFrom(money(PER_DECISIONS * sums.error("by_challenger"), rules))
        message.mean_latency.FromTimedelta(timedelta(seconds=sums.mean("seconds")))
        message.longest_latency.FromTimedelta(timedelta(seconds=sums.most_seconds))
    return message
