"""Budgets in the store: what is left when a decision is made, what it sets aside, and what becomes of that.

A send's price is reserved in the unit of work that keeps its decision. It is committed when an outcome says that it was sent, at what it really
cost, and released when it was not. A reservation of which nothing is heard counts as committed once it has expired: money that may have been
spent is never free again by itself, and a later NOT_SENT still releases it. So reserved + committed is never more than the budget, unless sends
cost more than the price that was reserved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from models.budget import GRACE, BudgetState, Period, Spending, period_of, shadow_price, state_of, update_price
from models.context import Mode, Verdict
from models.decide import Decision
from models.errors import InvalidInput, NotFound, Violation
from models.record import from_micros, to_micros
from models.rules import EVERY, Budget, Rules
from service.store.store import BudgetChangeRow, BudgetRow, OutcomeRow, Reader, ReservationRow, Unit

SETTLING = ("sent", "not_sent", "delivered", "undelivered")
_SENT = ("sent", "delivered", "undelivered")


class BudgetShort(Exception):
    """Raised in a unit of work when a budget has less left than the decisions took for granted; decide again with this much."""

    def __init__(self, budget: str, left_micros: int) -> None:
        self.budget = budget
        self.left_micros = left_micros
        super().__init__(f"budget {budget} has {left_micros} micros left")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money set aside for a send, as it is answered."""

    reservation_id: str
    amount_micros: int
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget in its period, as it stands."""

    budget: Budget
    period: Period
    spending: Spending
    shadow_price: float
    file_micros: int
    """What the rules file says."""


def present_budgets(reader: Reader, rules: Rules) -> tuple[Budget, ...]:
    """Return the budgets of the rules with the amounts that operators gave them since; a changed file holds again."""
    changes = reader.latest_budget_changes() if rules.budgets else {}
    if not changes:
        return rules.budgets
    return tuple(_changed(budget, changes.get(budget.name)) for budget in rules.budgets)


def _changed(budget: Budget, change: BudgetChangeRow | None) -> Budget:
    if change is None or change.amount_micros is None or change.file_micros != budget.amount:
        return budget
    return replace(budget, amount=change.amount_micros)


def change_amount(
    work: Unit, rules: Rules, name: str, amount_micros: int | None, reason: str, now: datetime
) -> Standing:
    """Give a budget another amount from now on, None for what the rules file says; the unit holds LEDGER.

    Raises
    ------
    NotFound: the rules have no such budget. InvalidInput: more than that is spent or set aside in the present period.
    """
    known = next((budget for budget in rules.budgets if budget.name == name), None)
    if known is None:
        raise NotFound("budget", name)
    settle_expired(work, rules, to_micros(now))
    changed = known if amount_micros is None else replace(known, amount=amount_micros)
    spent = _spending(work, known, rules, now).spent_micros
    if spent > changed.amount:
        problem = (
            f"is below the {spent / 1e6:.2f} that are spent or set aside in this period; "
            "give at least that, or pause the channel to spend no more"
        )
        raise InvalidInput([Violation(field="cap", description=problem)])
    before = work.latest_budget_changes().get(name)
    work.insert_budget_change(
        BudgetChangeRow(
            budget=name,
            number=1 if before is None else before.number + 1,
            change_time=to_micros(now),
            amount_micros=amount_micros,
            file_micros=known.amount,
            reason=reason,
        )
    )
    return next(standing for standing in standings(work, rules, now) if standing.budget.name == name)


def budget_states(
    reader: Reader, rules: Rules, campaign: str, now: datetime, most: Mapping[str, int]
) -> tuple[BudgetState, ...]:
    """Return the budgets that count sends of a campaign as they are now; of those named in `most`, no more is left than that."""
    states = [
        state_of(budget, rules, _spending(reader, budget, rules, now), now)
        for budget in present_budgets(reader, rules)
        if budget.campaign in (EVERY, campaign)
    ]
    return tuple(replace(s, left_micros=min(s.left_micros, most.get(s.name, s.left_micros))) for s in states)


def reservation_of(decision: Decision) -> Reservation | None:
    """Return what a decision sets aside, None where it sends nothing, for free, or no budget counts it."""
    context, choice = decision.context, decision.choice
    if choice.verdict is not Verdict.SEND or choice.slot is None or choice.action is None or not choice.price_micros:
        return None
    if context.mode is not Mode.LIVE or not any(b.counts(choice.action.channel) for b in context.budgets):
        return None
    return Reservation(
        reservation_id=f"{context.decision_id}/{context.step}",
        amount_micros=choice.price_micros,
        expire_time=choice.slot.end + GRACE,
    )


def reserve(work: Unit, rules: Rules, decisions: Sequence[Decision]) -> None:
    """Set aside what decisions of one moment, kept in this unit of work, are going to cost; the unit holds LEDGER.

    What was eligible is checked, not what was drawn: had a drawn paid send alone to be paid for, the propensity of the others would not be
    that of what was served.

    Raises
    ------
    BudgetShort: others have taken since what one of the decisions was to choose from.
    """
    for budget in present_budgets(work, rules):
        counted = [(d, state) for d in decisions for state in d.context.budgets if state.name == budget.name]
        if not counted or all(d.context.mode is not Mode.LIVE for d, _ in counted):
            continue
        now = counted[0][0].context.decide_time
        spending = _spending(work, budget, rules, now)
        left = max(0, budget.amount - spending.spent_micros)
        at_first = max(state.left_micros for _, state in counted)
        for decision, state in counted:
            dearest = _dearest_micros(decision, state)
            if dearest and at_first - state.left_micros + dearest > left:
                raise BudgetShort(budget.name, left)
        total = 0
        for decision, state in counted:
            reserved = reservation_of(decision)
            if reserved is None or decision.choice.action is None or not state.counts(decision.choice.action.channel):
                continue
            total += reserved.amount_micros
            work.insert_reservation(
                ReservationRow(
                    decision_id=decision.context.decision_id,
                    step=decision.context.step,
                    budget=budget.name,
                    period_start=_key(budget, rules, now),
                    price_micros=reserved.amount_micros,
                    reserved_micros=reserved.amount_micros,
                    committed_micros=0,
                    expire_time=to_micros(reserved.expire_time),
                )
            )
        if total:
            spending = update_price(budget, rules, spending, now)
            _add(work, budget.name, _key(budget, rules, now), spending, total, 0)


def settle(work: Unit, rules: Rules, decision_id: str, step: int, now: int) -> None:
    """Bring the reservations of a step in line with its outcomes, in whatever order they came."""
    rows = work.list_reservations(decision_id, step)
    outcomes = [o for o in work.list_outcomes(decision_id) if o.step == step] if rows else []
    for row in rows:
        _change(work, rules, _settled(row, outcomes), row, now)


def settle_expired(work: Unit, rules: Rules, now: int) -> None:
    """Count reservations that have expired as spent."""
    for row in work.list_expired(now):
        _change(work, rules, replace(row, reserved_micros=0, committed_micros=row.price_micros), row, now)


def standings(reader: Reader, rules: Rules, now: datetime) -> list[Standing]:
    """Return every budget of the rules in its present period, a total in its only one."""
    found = []
    for budget, of_file in zip(present_budgets(reader, rules), rules.budgets, strict=True):
        period, spending = period_of(budget, rules, now), _spending(reader, budget, rules, now)
        price = shadow_price(budget, rules, spending, now) if period.holds(now) else 0.0
        found.append(
            Standing(budget=budget, period=period, spending=spending, shadow_price=price, file_micros=of_file.amount)
        )
    return found


def _settled(row: ReservationRow, outcomes: Iterable[OutcomeRow]) -> ReservationRow:
    """Return a reservation as the outcomes of its step leave it: SENT, or what follows it, wins over NOT_SENT; the latest actual cost holds."""
    seen = [outcome for outcome in outcomes if outcome.type in SETTLING]
    costs = [o.cost_micros for o in seen if o.type in _SENT and o.cost_micros is not None]
    if any(outcome.type in _SENT for outcome in seen):
        return replace(row, reserved_micros=0, committed_micros=costs[-1] if costs else row.price_micros)
    return replace(row, reserved_micros=0, committed_micros=0) if seen else row


def _change(work: Unit, rules: Rules, new: ReservationRow, old: ReservationRow, now: int) -> None:
    """Write a reservation and its budget anew where they differ."""
    known = work.find_budget(old.budget, old.period_start)
    if new == old or known is None:
        return
    spending = _spending_of(known)
    for budget in present_budgets(work, rules):
        moment = from_micros(now)
        if budget.name == old.budget and _key(budget, rules, moment) == old.period_start:
            spending = update_price(budget, rules, spending, moment)
    reserved = new.reserved_micros - old.reserved_micros
    committed = new.committed_micros - old.committed_micros
    work.update_reservation(new)
    _add(work, old.budget, old.period_start, spending, reserved, committed)


def _dearest_micros(decision: Decision, state: BudgetState) -> int:
    """Return the highest price that a decision could have paid out of a budget."""
    if decision.distribution is None or decision.context.mode is not Mode.LIVE:
        return 0
    table = decision.distribution.table
    counted = [state.counts(action.channel) for action in table.actions]
    return int(table.price_micros[counted].max(initial=0.0))


def _key(budget: Budget, rules: Rules, now: datetime) -> int:
    """Return under which start a budget's present period is stored; totals have one, so that a change of their dates forgets nothing."""
    return 0 if budget.period == "total" else to_micros(period_of(budget, rules, now).start)


def _spending(reader: Reader, budget: Budget, rules: Rules, now: datetime) -> Spending:
    """Return what became of a budget in its present period; a new one begins with the price that the last one held."""
    key = _key(budget, rules, now)
    row = reader.find_budget(budget.name, key)
    if row is not None and row.period_start == key:
        return _spending_of(row)
    start = period_of(budget, rules, now).start
    return Spending(held_price=0.0 if row is None else row.held_price, price_time=start)


def _spending_of(row: BudgetRow) -> Spending:
    return Spending(
        reserved_micros=row.reserved_micros,
        committed_micros=row.committed_micros,
        held_price=row.held_price,
        price_time=from_micros(row.price_time),
    )


def _add(work: Unit, budget: str, period_start: int, spending: Spending, reserved: int, committed: int) -> None:
    """Add to what is reserved and committed, and keep the price as it is in `spending`."""
    work.add_budget(
        BudgetRow(
            budget=budget,
            period_start=period_start,
            reserved_micros=reserved,
            committed_micros=committed,
            held_price=spending.held_price,
            price_time=to_micros(spending.price_time),
        )
    )
