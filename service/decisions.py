"""Use cases: choosing a channel, advancing a cascade, reading a decision."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from models.arbitrate import Arm, arm_of, decide_people, decide_together
from models.bundle import Bundle
from models.cascade import Progress, advance_time, find_end, first_events
from models.context import Assignment, ChannelOption, Content, Context, CustomerState, Message, Mode, Verdict
from models.correction import Factors
from models.decide import Choice, Decision, decide, end_cascade, make_seed
from models.errors import AlreadyExists, ChannelChoiceError, InvalidInput, NotFound, Violation
from models.experiments import Enrolment, ExperimentState, Standing, assignments, rules_under
from models.features import NO_SEND
from models.policies import PER_DECISIONS
from models.record import context_from_json, from_micros, to_micros
from models.rules import Rules
from service.budgets import Demand, budget_states, demands, lease, reserve
from service.bundles import BundleHolder
from service.clock import Clock
from service.customers import Customers, PersonChanged, Resolved, keep_person, until_unchanged
from service.learning import Learner
from service.ledger import BudgetShort, Hints, LeaseShort, Ledger
from service.outcomes import adopt_parked, cascade_events, contact_of, deliveries_awaited
from service.requests import AdvanceRequest, AskedChannel, AskedMessage, ChooseRequest
from service.rounds import only_wait
from service.store.identity import Keys
from service.store.profile import Profile
from service.store.rows import decision_of, new_decision_id, row_of
from service.store.store import DecisionRow, ExposureRow, History, OutcomeRow, Store, Unit
from service.variants import VariantBundles
from service.version import VERSION

_BATCH_THREADS = 32
READ_TOGETHER = 64
"""People of a batch, or calls of a round, who are held, read and written at a time."""
_DECIDED_TOGETHER = 16
"""Of whom as many are decided before another call has its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A decision as it is answered: what was decided, for which request, and whether it was made before."""

    decision: Decision
    request_id: str
    trainable: bool
    is_replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A decision to be kept, with the request it is of."""

    decision: Decision
    request_id: str
    digest: bytes


class _NothingKept(Exception):
    """Raised in a unit of work whose every request_id is taken, so that its person is not written down for nothing either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Requests of one person and mode who is held, with the rows of those decided before."""

    requests: Sequence[ChooseRequest]
    rows: Sequence[DecisionRow | None]
    hashes: Sequence[tuple[bytes, ...]]
    person: Resolved

    @property
    def fresh(self) -> list[int]:
        """Places of the requests that were not decided before."""
        return [place for place, row in enumerate(self.rows) if row is None]

    @property
    def is_counted(self) -> bool:
        """Whether decisions are kept."""
        return self.requests[0].mode is not Mode.DRY_RUN

    @property
    def asking(self) -> Resolved:
        """The person with those new identities alone that requests not decided before name."""
        asked = {h for place in self.fresh for h in self.hashes[place]}
        return replace(self.person, new_hashes=tuple(h for h in self.person.new_hashes if h in asked))


class Decisions:
    """Decides, keeps what was decided before it answers, and answers the same again to the same request."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        bundles: BundleHolder,
        clock: Clock,
        customers: Customers,
        learner: Learner,
        keys: Keys,
        variants: VariantBundles,
        ledger: Ledger,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._leases = Hints()
        self._rules = rules
        self._bundles = bundles
        self._variants = variants
        self._clock = clock
        self._customers = customers
        self._learner = learner
        self._keys = keys
        self._pool = ThreadPoolExecutor(_BATCH_THREADS, thread_name_prefix="batch")
        # Threads that compute at the same time take turns at the interpreter's lock after every product of matrices, which costs more than waiting for each other.
        self._deciding = threading.Lock()
        self._count = 0
        self._exploration_micros = 0.0
        self._count_lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many decisions were answered since the start."""
        return self._count

    @property
    def exploration_cost_micros(self) -> float:
        """What exploring is expected to have cost per thousand of these decisions."""
        with self._count_lock:
            return PER_DECISIONS * self._exploration_micros / max(self._count, 1)

    def close(self) -> None:
        self._pool.shutdown()

    def choose(self, request: ChooseRequest) -> Answer:
        """Decide one message for one customer.

        Raises
        ------
        AlreadyExists: the request_id came before with another body. StoreUnavailable: try again.
        """
        (answer,) = self.choose_round([request])
        if isinstance(answer, ChannelChoiceError):
            raise answer
        return answer

    def choose_all(self, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
        """Decide many requests, sharing commits, and answer them in their order.

        The LIVE ones of one person are decided together. Others follow one by one, and find what the LIVE ones have booked.
        """
        answers: dict[int, Answer | ChannelChoiceError] = {}

        live = [place for place, request in enumerate(requests) if request.mode is Mode.LIVE]
        try:
            people = self._customers.group([requests[place].person for place in live])
        except ChannelChoiceError as error:
            return [error] * len(requests)
        together = [[live[number] for number in person] for person in people]
        for groups in (together, *(_alone(requests, mode) for mode in (Mode.SHADOW, Mode.DRY_RUN))):
            self._choose_groups(requests, groups, answers)
        return [answers[place] for place in range(len(requests))]

    def choose_in_turn(self, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
        """Decide requests as one call for each would, one after another, and answer them in their order; those of different people share reads and commits."""
        answers: dict[int, Answer | ChannelChoiceError] = {}
        try:
            people = self._customers.group([request.person for request in requests])
        except ChannelChoiceError as error:
            return [error] * len(requests)
        turns: dict[int, list[list[int]]] = {}
        for places in people:
            for turn, place in enumerate(places):
                turns.setdefault(turn, []).append([place])
        for turn in sorted(turns):
            self._choose_groups(requests, turns[turn], answers)
        return [answers[place] for place in range(len(requests))]

    def choose_round(self, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
        """Decide requests of callers who know nothing of each other, in any order, and answer them in theirs; no two LIVE ones of a person see the same history."""
        answers: dict[int, Answer | ChannelChoiceError] = {}
        self._choose_groups(requests, [[place] for place in range(len(requests))], answers)
        return [answers[place] for place in range(len(requests))]

    def _choose_groups(
        self,
        requests: Sequence[ChooseRequest],
        groups: Sequence[Sequence[int]],
        answers: dict[int, Answer | ChannelChoiceError],
    ) -> None:
        """Decide groups of requests, each of one person, with one look at the store and one commit; by themselves those that cannot be."""

        def run(places: Sequence[int]) -> None:
            try:
                found = self._choose_for_one([requests[place] for place in places])
            except ChannelChoiceError as error:
                found = [error] * len(places)
            answers.update(zip(places, found, strict=True))

        for first in range(0, len(groups), READ_TOGETHER):
            some = groups[first : first + READ_TOGETHER]
            if len(some) == 1:
                run(some[0])
                continue
            try:
                decided = self._choose_each([[requests[place] for place in places] for places in some])
            except ChannelChoiceError:
                decided = [None] * len(some)
            for places, of_one in zip(some, decided, strict=True):
                answers.update(zip(places, of_one or (), strict=of_one is not None))
            self._run_each(run, [places for places, of_one in zip(some, decided, strict=True) if of_one is None])

    def _run_each(self, run: Callable[[Sequence[int]], None], groups: Sequence[Sequence[int]]) -> None:
        """Run each group, several at a time so that they share commits."""
        if len(groups) == 1:
            run(groups[0])
            return
        for done in [self._pool.submit(run, places) for places in groups]:
            done.result()

    def _choose_each(self, groups: Sequence[Sequence[ChooseRequest]]) -> list[list[Answer | ChannelChoiceError] | None]:
        """Decide requests of several people, those of each of one mode and together, at one moment; what all need is read at once, and shares commits.

        None stands for those to be decided by themselves: their identities lead to several persons, or to one of whom another LIVE group is; somebody
        changed them meanwhile; or money is short.
        """
        hashes = [[self._customers.hashes(request.person) for request in of_one] for of_one in groups]
        everyone = [tuple(dict.fromkeys(h for of_request in of_one for h in of_request)) for of_one in hashes]
        with self._customers.hold_each(everyone) as held:
            people = _booked_once(groups, held)
            asked = [request.request_id for of_one in groups for request in of_one]
            found_rows = iter(self._store.read(lambda reader: reader.find_requests(asked)))
            rows = [[next(found_rows) for _ in of_one] for of_one in groups]
            opened = [
                _Opened(requests=of_one, rows=known, hashes=of_requests, person=person)
                for of_one, known, of_requests, person in zip(groups, rows, hashes, people, strict=True)
                if person is not None
            ]
            bundle, others = self._bundles.current, self._variants.current
            decided: list[list[Decision]] = []
            for first in range(0, len(opened), _DECIDED_TOGETHER):
                contexts = [self._fresh_contexts(one, {}) for one in opened[first : first + _DECIDED_TOGETHER]]
                with self._deciding:
                    decided += decide_people(contexts, self._rules, bundle, others)
            entries = [self._entries(one, found) for one, found in zip(opened, decided, strict=True)]
            kept = self._keep_each(opened, entries)
            answers = [
                None if of_one is None else self._answers(one, found, of_one)
                for one, found, of_one in zip(opened, entries, kept, strict=True)
            ]
        following = iter(answers)
        return [None if person is None else next(following) for person in people]

    def _keep_each(
        self, opened: Sequence["_Opened"], entries: Sequence[list[_Entry]]
    ) -> list[list[bool] | ChannelChoiceError | None]:
        """Write down what is to be kept of each person, in units that share commits; None where one has to be decided again."""
        kept: list[list[bool] | ChannelChoiceError | None] = [[True] * len(found) for found in entries]
        counted = [place for place, one in enumerate(opened) if one.is_counted and entries[place]]
        units, names = [], []
        for place in counted:
            asked = demands(self._rules, [entry.decision for entry in entries[place]])
            names.append([demand.budget for demand in asked])
            units.append(self._unit(entries[place], asked, opened[place].asking, self._ledger_of(asked)))
        only_wait()
        results = self._store.write_each(units) if units else ()
        for place, budgets, result in zip(counted, names, results, strict=True):
            if isinstance(result, _NothingKept):
                kept[place] = [False] * len(entries[place])
            elif isinstance(result, BudgetShort | LeaseShort | PersonChanged):
                if isinstance(result, LeaseShort):
                    self._leases.forget(budgets)
                kept[place] = None
            elif isinstance(result, Exception) and not isinstance(result, ChannelChoiceError):
                raise result
            else:
                kept[place] = result
        return kept

    def _fresh_contexts(self, opened: "_Opened", most: Mapping[str, int]) -> list[Context]:
        """Return the contexts of the requests that were not decided before."""
        person, bundle, others = opened.person, self._bundles.current, self._variants.current
        contexts = [self._first_context(opened.requests[place], person, person.moment, most) for place in opened.fresh]
        return [self._with_factors(c, arm_of(c, self._rules, bundle, others).bundle) for c in contexts]

    def _entries(self, opened: "_Opened", decisions: Sequence[Decision]) -> list[_Entry]:
        return [
            _Entry(
                decision=_stamped(decision),
                request_id=opened.requests[place].request_id,
                digest=self._keys.digest(opened.requests[place].body),
            )
            for place, decision in zip(opened.fresh, decisions, strict=True)
        ]

    def _answers(
        self, opened: "_Opened", entries: Sequence[_Entry], kept: Sequence[bool] | ChannelChoiceError
    ) -> list[Answer | ChannelChoiceError]:
        """Answer the requests of one person, of which those decided before keep their answers."""
        if isinstance(kept, ChannelChoiceError):
            return [kept] * len(opened.requests)
        answers = {
            place: self._replay(row, opened.requests[place].body)
            for place, row in enumerate(opened.rows)
            if row is not None
        }
        for place, entry, is_kept in zip(opened.fresh, entries, kept, strict=True):
            body = opened.requests[place].body
            answers[place] = self._answer(entry.decision, entry.request_id) if is_kept else self._taken(entry, body)
        return [answers[place] for place in range(len(opened.requests))]

    def _choose_for_one(self, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
        return until_unchanged(lambda: self._choose_once(requests))

    def _choose_once(self, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
        """Decide requests of one person and mode together; those decided before keep their answers."""
        hashes = [self._customers.hashes(request.person) for request in requests]
        everyone = tuple(dict.fromkeys(h for of_one in hashes for h in of_one))
        with self._customers.hold(everyone, is_merging=requests[0].mode is not Mode.DRY_RUN) as person:
            asked = [request.request_id for request in requests]
            rows = self._store.read(lambda reader: reader.find_requests(asked))
            opened = _Opened(requests=requests, rows=rows, hashes=hashes, person=person)
            bundle, others = self._bundles.current, self._variants.current

            def decide_fresh(most: Mapping[str, int]) -> list[_Entry]:
                contexts = self._fresh_contexts(opened, most)
                with self._deciding:
                    decisions = decide_together(contexts, self._rules, bundle, others)
                return self._entries(opened, decisions)

            if opened.is_counted and opened.fresh:
                entries, kept = self._decide_and_keep(decide_fresh, opened.asking)
            else:
                entries, kept = decide_fresh({}), [True] * len(opened.fresh)
            return self._answers(opened, entries, kept)

    def _taken(self, entry: _Entry, body: bytes) -> Answer | ChannelChoiceError:
        """Answer a request whose id was taken while it was decided."""
        other = self._store.read(lambda reader: reader.find_request(entry.request_id))
        if other is None:
            return AlreadyExists("decision", entry.decision.context.decision_id)
        return self._replay(other, body)

    def advance(self, request: AdvanceRequest) -> Answer:
        """Decide the next step of a cascade; DEFER, which is not kept, while the last step's wait is not over.

        Raises
        ------
        NotFound: no such decision, or its customer was erased. InvalidInput: the completed step was not decided yet.
        """
        return until_unchanged(lambda: self._advance_once(request))

    def _advance_once(self, request: AdvanceRequest) -> Answer:
        with self._customers.hold_owner(request.decision_id) as person:
            steps = self._steps(request.decision_id)
            if request.completed_step > len(steps):
                problem = f"step {request.completed_step} was not decided yet, the latest is {len(steps)}"
                raise InvalidInput([Violation(field="completed_step", description=problem)])
            if request.completed_step < len(steps):
                return self._stored(steps[request.completed_step], is_replayed=True)
            last = steps[-1]
            if last.verdict != Verdict.SEND:
                return self._stored(last, is_replayed=True)
            context = self._next_context(request, steps, person)
            arm = arm_of(context, self._rules, self._bundles.current, self._variants.current)
            context = self._with_factors(context, arm.bundle)
            progress = self._progress(context, steps)
            end = find_end(context, arm.rules, progress)
            if end is not None:
                decision: Decision | None = _stamped(end_cascade(context, arm.rules, end))
            else:
                ready = advance_time(progress)
                if ready > context.decide_time:
                    waiting = Choice(
                        verdict=Verdict.DEFER, retry_time=ready, policy="waiting", rules_name=self._rules.name
                    )
                    return self._answer(_stamped(Decision(context=context, choice=waiting)), last.request_id)
                decision = None

            def decide_step(most: Mapping[str, int]) -> list[_Entry]:
                found = decision or self._decide_step(context, arm, person, most)
                return [_Entry(decision=found, request_id=last.request_id, digest=last.request_digest)]

            (entry,), (is_kept,) = self._decide_and_keep(decide_step, person)
            if not is_kept:
                other = self._store.read(lambda reader: reader.find_step(request.decision_id, context.step))
                if other is not None:
                    return self._stored(other, is_replayed=True)
            return self._answer(entry.decision, last.request_id)

    def _decide_step(self, context: Context, arm: Arm, person: Resolved, most: Mapping[str, int]) -> Decision:
        budgets = budget_states(person.history, self._rules, context.message.campaign, context.decide_time, most)
        with self._deciding:
            return _stamped(decide(replace(context, budgets=budgets), arm.rules, arm.bundle))

    def get(self, decision_id: str) -> tuple[list[Answer], list[OutcomeRow]]:
        """Return all steps of a decision and all outcomes reported of it.

        Raises
        ------
        NotFound: there is no such decision, or its customer was erased.
        """
        steps = self._steps(decision_id)
        outcomes = self._store.read(lambda reader: reader.list_outcomes(decision_id))
        return [self._stored(row) for row in steps], outcomes

    def _steps(self, decision_id: str) -> list[DecisionRow]:
        steps = self._store.read(lambda reader: reader.list_steps(decision_id))
        if not steps or steps[0].is_erased:
            raise NotFound("decision", decision_id)
        return steps

    def _answer(self, decision: Decision, request_id: str) -> Answer:
        with self._count_lock:
            self._count += 1
            self._exploration_micros += decision.choice.exploration_cost_micros
        return Answer(decision=decision, request_id=request_id, trainable=decision.choice.trainable)

    def _replay(self, row: DecisionRow, body: bytes) -> Answer | ChannelChoiceError:
        if not self._keys.is_digest(row.request_digest, body):
            return AlreadyExists("request_id", row.request_id)
        return self._stored(row, is_replayed=True)

    def _stored(self, row: DecisionRow, *, is_replayed: bool = False) -> Answer:
        """Return a stored decision; given again it is as it was, else with what has become of it since."""
        decision = decision_of(row)
        trainable = decision.choice.trainable if is_replayed else row.trainable
        return Answer(decision=decision, request_id=row.request_id, trainable=trainable, is_replayed=is_replayed)

    def _decide_and_keep(
        self, decide_entries: Callable[[Mapping[str, int]], list[_Entry]], person: Resolved
    ) -> tuple[list[_Entry], list[bool]]:
        """Decide and write down; decide again while budgets turn out to have less left, which each time takes a channel out.

        A step that is deferred is not kept: it is asked for again.
        """
        most: dict[str, int] = {}
        while True:
            entries = decide_entries(most)
            context = entries[0].decision.context
            if context.step > 1 and entries[0].decision.choice.verdict is Verdict.DEFER:
                return entries, [True]
            try:
                return entries, self._keep(entries, person)
            except BudgetShort as short:
                most[short.budget] = short.left_micros

    def _keep(self, entries: Sequence[_Entry], person: Resolved) -> list[bool]:
        """Write decisions of one person down with all that follows from them; False for each whose request_id or step is taken."""
        asked = demands(self._rules, [entry.decision for entry in entries])
        try:
            return self._keep_by(entries, asked, person, self._ledger_of(asked))
        except LeaseShort:
            self._leases.forget([demand.budget for demand in asked])
            return self._keep_by(entries, asked, person, self._ledger.held())

    def _ledger_of(self, asked: Sequence[Demand]) -> Ledger:
        """Return by what a unit of work charges these demands: by leases, unless they are known not to suffice."""
        if self._ledger.is_held or not asked:
            return self._ledger
        is_leased = self._leases.suffice([demand.budget for demand in asked], to_micros(asked[0].now))
        return self._ledger if is_leased else self._ledger.held()

    def _keep_by(
        self, entries: Sequence[_Entry], asked: Sequence[Demand], person: Resolved, ledger: Ledger
    ) -> list[bool]:
        """Write decisions down; what they cost comes out of leases, unless the unit of work holds the ledger.

        Raises
        ------
        LeaseShort: leases do not suffice. BudgetShort: the ledger does not.
        """
        unit, locks = self._unit(entries, asked, person, ledger)
        only_wait()
        try:
            return self._store.write(unit, locks)
        except _NothingKept:
            return [False] * len(entries)

    def _unit(
        self, entries: Sequence[_Entry], asked: Sequence[Demand], person: Resolved, ledger: Ledger
    ) -> tuple[Callable[[Unit], list[bool]], list[int]]:
        """Return the unit of work that writes decisions of one person down, and its locks; see `_keep_by`."""
        rows = [row_of(entry.decision, entry.request_id, entry.digest) for entry in entries]

        def unit(work: Unit) -> list[bool]:
            if not ledger.is_held:
                lease(work, asked, ledger)
            keep_person(work, person, rows[0].decide_time)
            kept = [work.insert_decision(row) for row in rows]
            if not any(kept):
                raise _NothingKept
            if asked and not all(kept) and not ledger.is_held:
                raise LeaseShort  # more was taken than is needed now
            decisions = [entry.decision for entry, is_kept in zip(entries, kept, strict=True) if is_kept]
            granted = reserve(work, self._rules, asked if all(kept) else demands(self._rules, decisions), ledger)
            for entry, row, is_kept in zip(entries, rows, kept, strict=True):
                if is_kept:
                    self._keep_effects(work, entry.decision, row, ledger)
            for exposure in _first_exposures([d.context for d in decisions], person.history, self._rules):
                work.insert_exposure(exposure)
            self._leases.note(granted)
            return kept

        return unit, [*person.locks, *(ledger.locks if asked else ())]

    def _keep_effects(self, work: Unit, decision: Decision, row: DecisionRow, ledger: Ledger) -> None:
        choice, message = decision.choice, decision.context.message
        if choice.verdict is Verdict.SEND and choice.slot is not None and decision.context.mode is Mode.LIVE:
            end = to_micros(choice.slot.end)
            work.insert_contact(contact_of(row, message.topic, message.category, end))
        self._learner.book(work, decision, row)
        adopt_parked(work, [row], self._rules, row.decide_time, ledger)

    def _first_context(
        self, request: ChooseRequest, person: Resolved, now: datetime, most: Mapping[str, int]
    ) -> Context:
        message = _message(request.message, self._rules, now)
        features = {**person.profile.features, **request.person.features, **request.features}
        customer = self._customers.state(person, request.person)
        return Context(
            decision_id=new_decision_id(now, request.request_id),
            step=1,
            decide_time=now,
            not_before=max(now, message.earliest_time),
            customer=customer,
            message=message,
            options=tuple(_option(channel, person.profile, self._rules) for channel in request.channels),
            seed=make_seed(request.request_id, 1),
            constraints=request.constraints,
            features=features,
            paused=person.history.pauses,
            budgets=budget_states(person.history, self._rules, message.campaign, now, most),
            mode=request.mode,
            experiments=self._assignments(message, customer, person.history, now),
        )

    def _next_context(
        self,
        request: AdvanceRequest,
        steps: Sequence[DecisionRow],
        person: Resolved,
    ) -> Context:
        """Return the context of the next step: that of the first, as things are now."""
        now, profile = person.moment, person.profile
        first = context_from_json(steps[0].context)
        last = context_from_json(steps[-1].context)
        state = self._customers.state(person, None)
        asked = first.customer
        state = replace(state, time_zone=asked.time_zone, country=asked.country, locale=asked.locale)
        options = {option.channel: option for option in last.options}
        for channel in request.channels:
            options[channel.channel] = _option(channel, profile, self._rules)
        consenting = tuple(_still_consented(option, profile) for option in options.values())
        number = len(steps) + 1
        awaited = self._awaited(steps, state)
        overdue = [row.channel for row in steps if row.step in awaited and awaited[row.step] <= now]
        return replace(
            first,
            step=number,
            decide_time=now,
            not_before=now,
            customer=state,
            options=consenting,
            seed=make_seed(steps[0].request_id, number),
            tried=tuple(dict.fromkeys(row.channel for row in steps if row.channel != NO_SEND)),
            overdue=tuple(overdue),
            paused=person.history.pauses,
            reserved=(),
            budgets=(),
        )

    def _progress(self, context: Context, steps: Sequence[DecisionRow]) -> Progress:
        last = steps[-1]
        seen = self._store.read(lambda reader: cascade_events(reader, last, steps[0]))
        sent = [
            c.start
            for c in context.customer.contacts
            if c.decision_id == last.decision_id and c.channel == last.channel
        ]
        return Progress(
            events=first_events((event, from_micros(moment)) for event, moment in seen),
            last_send_time=sent[-1] if sent else from_micros(last.send_time or last.decide_time),
            last_wait=_last_wait(last, self._rules),
            steps_made=len(steps),
            deliver_until=self._awaited(steps, context.customer).get(last.step),
        )

    def _awaited(self, steps: Sequence[DecisionRow], state: CustomerState) -> dict[int, datetime]:
        """Return until when delivery is waited for, by step of a message."""
        name = steps[0].decision_id
        outcomes = self._store.read(lambda reader: reader.list_outcomes(name))
        return deliveries_awaited(outcomes, [c for c in state.contacts if c.decision_id == name], self._rules)

    def _with_factors(self, context: Context, bundle: Bundle | None) -> Context:
        """Return the context with what has been learned since the bundle was trained, as far as the rules let it count."""
        factors: Factors = {}
        if bundle is not None and rules_under(self._rules, context.experiments).policy.correction:
            channels = [option.channel for option in context.options]
            kind, now = context.message.kind, context.decide_time
            factors = self._learner.factors(bundle.version, now, kind, context.step, channels)
        return context if factors == context.factors else replace(context, factors=factors)

    def _assignments(
        self, message: Message, customer: CustomerState, history: History, now: datetime
    ) -> tuple[Assignment, ...]:
        if not self._rules.experiments:
            return ()
        known = Enrolment(
            standings={
                row.experiment: Standing(state=ExperimentState(row.state), exposure=row.exposure)
                for row in history.experiments
            },
            exposures={
                name: Assignment(experiment=name, variant=variant, probability=p)
                for name, variant, p in history.exposures
            },
            missing=self._variants.missing,
        )
        return assignments(self._rules, customer.key, message, customer.country, now, known)


def _booked_once(groups: Sequence[Sequence[ChooseRequest]], held: Sequence[Resolved | None]) -> list[Resolved | None]:
    """Return who is held for each group, None for a LIVE one of somebody of whom a LIVE one comes before: it would not see what that one books."""
    found, booked = list[Resolved | None](), set[str]()
    for requests, person in zip(groups, held, strict=True):
        if person is not None and requests[0].mode is Mode.LIVE:
            person = None if person.key in booked else person
            booked.update([] if person is None else [person.key])
        found.append(person)
    return found


def _alone(requests: Sequence[ChooseRequest], mode: Mode) -> list[list[int]]:
    """Return the places of the requests of a mode, each by itself."""
    return [[place] for place, request in enumerate(requests) if request.mode is mode]


def _first_exposures(contexts: Iterable[Context], history: History, rules: Rules) -> list[ExposureRow]:
    """Return the exposures that LIVE decisions make for the first time."""
    known = {name for name, _, _ in history.exposures}
    found: dict[str, ExposureRow] = {}
    for context in contexts:
        for assigned in context.experiments if context.mode is Mode.LIVE and context.step == 1 else ():
            if assigned.experiment not in known and assigned.experiment not in found:
                found[assigned.experiment] = ExposureRow(
                    experiment=assigned.experiment,
                    customer_key=context.customer.key,
                    variant=assigned.variant,
                    probability=assigned.probability,
                    expose_time=to_micros(context.decide_time),
                    decision_id=context.decision_id,
                    rules_name=rules.name,
                )
    return list(found.values())


def _stamped(decision: Decision) -> Decision:
    """Say in a decision which version of the service made it."""
    return replace(decision, choice=replace(decision.choice, service_version=VERSION))


def _last_wait(last: DecisionRow, rules: Rules) -> timedelta:
    """Return how long the last step was to be waited for: as planned with it, else as the rules say."""
    steps = decision_of(last).choice.steps
    return steps[0].wait if steps else rules.channels[last.channel].wait


def _message(asked: AskedMessage, rules: Rules, now: datetime) -> Message:
    earliest = asked.earliest_time or now
    expire = asked.expire_time or max(earliest, now) + timedelta(hours=rules.timing.lifetime_hours)
    return Message(
        campaign=asked.campaign,
        kind=asked.kind,
        category=asked.category,
        order_margin_micros=asked.order_margin_micros,
        earliest_time=earliest,
        expire_time=expire,
        content=asked.content,
        topic=asked.topic,
        offer=asked.offer,
        journey_stage=asked.journey_stage,
        relevance_half_life_seconds=asked.relevance_half_life_seconds,
        priority=asked.priority,
    )


def _option(asked: AskedChannel, profile: Profile, rules: Rules) -> ChannelOption:
    """Take request and profile together; a stored withdrawal of consent wins over everything."""
    stored = profile.consents.get(asked.channel)
    consent = asked.consent or (stored.state if stored else rules.channels[asked.channel].consent_default)
    if stored is not None and stored.state == "denied":
        consent = "denied"
    reachable = asked.is_reachable
    if reachable is None:
        reachable = profile.reachability.get(asked.channel, "reachable") == "reachable"
    content: Content | None = asked.content
    return ChannelOption(
        channel=asked.channel,
        is_reachable=reachable,
        has_consent=consent == "granted",
        price_override_micros=asked.price_override_micros,
        content=content,
    )


def _still_consented(option: ChannelOption, profile: Profile) -> ChannelOption:
    stored = profile.consents.get(option.channel)
    return replace(option, has_consent=False) if stored is not None and stored.state == "denied" else option
