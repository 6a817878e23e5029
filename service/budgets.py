"""Budgets in the store: what is left when a decision is made, what it sets aside, and what becomes of that.

A send's price is reserved in the unit of work that keeps its decision. It is committed when an outcome says that it was sent, at what it really
cost, and released when it was not. A reservation of which nothing is heard counts as committed once it has expired: money that may have been
spent is never free again by itself, and a later NOT_SENT still releases it. So reserved + committed is never more than the budget, unless sends
cost more than the price that was reserved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from models.budget import GRACE, BudgetState, Period, Spending, period_of, shadow_price, state_of
from models.context import Mode, Verdict
from models.decide import Decision
from models.errors import InvalidInput, NotFound, Violation
from models.record import to_micros
from models.rules import EVERY, Budget, Rules
from service.ledger import (
    Ledger,
    account,
    account_of,
    add_settled,
    charge,
    end_all,
    end_expired,
    key_of,
    present_budgets,
    take,
    with_amounts,
)
from service.store.store import BudgetChangeRow, History, OutcomeRow, Reader, ReservationRow, Unit

SETTLING = ("sent", "not_sent", "delivered", "undelivered")
_SENT = ("sent", "delivered", "undelivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money set aside for a send, as it is answered."""

    reservation_id: str
    amount_micros: int
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What decisions of one moment ask of a budget in its period then."""

    budget: str
    key: int
    """Under which start the period is stored."""
    need_micros: int
    """The most that they could have spent: their dearest eligible sends."""
    reservations: tuple[tuple[Decision, Reservation], ...]
    """What they do set aside."""
    now: datetime

    @property
    def total_micros(self) -> int:
        """What they set aside together."""
        return sum(reserved.amount_micros for _, reserved in self.reservations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget in its period, as it stands."""

    budget: Budget
    period: Period
    spending: Spending
    shadow_price: float
    leased_micros: int
    """What replicas have set aside for sends to come."""
    file_micros: int
    """What the rules file says."""


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
    end_all(work, known, rules, now)
    changed = known if amount_micros is None else replace(known, amount=amount_micros)
    spent = account_of(work, known, rules, now, Ledger()).spending.spent_micros
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
    history: History, rules: Rules, campaign: str, now: datetime, most: Mapping[str, int]
) -> tuple[BudgetState, ...]:
    """Return the budgets that count sends of a campaign as they were read; of those named in `most`, no more is left than that."""
    rows, found = {row.budget: row for row in history.budgets}, []
    for budget in with_amounts(rules, history.amounts):
        if budget.campaign in (EVERY, campaign):
            known = account(rows.get(budget.name), budget, rules, now)
            state = state_of(budget, rules, known.spending, now)
            left = max(0, state.left_micros - known.leased_micros)
            found.append(replace(state, left_micros=min(left, most.get(state.name, left))))
    return tuple(found)


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


def demands(rules: Rules, decisions: Sequence[Decision]) -> list[Demand]:
    """Return what decisions of one moment ask of each budget that they count on.

    What was eligible is asked for, not what was drawn: had a drawn paid send alone to be paid for, the propensity of the others would not be
    that of what was served.
    """
    found = []
    for budget in rules.budgets:
        counted = [(d, state) for d in decisions for state in d.context.budgets if state.name == budget.name]
        at_first = max((state.left_micros for _, state in counted), default=0)
        asked = [(at_first - state.left_micros, _dearest_micros(decision, state)) for decision, state in counted]
        need = max((before + dearest for before, dearest in asked if dearest), default=0)
        if need:
            reserved = [(decision, _reserved_of(decision, state)) for decision, state in counted]
            now = counted[0][0].context.decide_time
            found.append(
                Demand(
                    budget=budget.name,
                    key=key_of(budget, rules, now),
                    need_micros=need,
                    reservations=tuple((d, reservation) for d, reservation in reserved if reservation is not None),
                    now=now,
                )
            )
    return found


def lease(work: Unit, asked: Iterable[Demand], ledger: Ledger) -> None:
    """Take what decisions ask out of leases; the first that the unit does, so that nothing is undone where they do not suffice.

    Raises
    ------
    LeaseShort: they do not.
    """
    for demand in asked:
        need, total = demand.need_micros, demand.total_micros
        take(work, demand.budget, demand.key, to_micros(demand.now), ledger, need, total)


def reserve(work: Unit, rules: Rules, asked: Sequence[Demand], ledger: Ledger) -> Mapping[str, int]:
    """Set aside what decisions kept in this unit of work are going to cost; return which budgets have leases now, until when.

    A unit that does not hold LEDGER has taken the money out of leases before.

    Raises
    ------
    BudgetShort: others have taken since what one of the decisions was to choose from.
    """
    granted: dict[str, int] = {}
    present = {budget.name: budget for budget in present_budgets(work, rules)} if asked and ledger.is_held else {}
    for demand in asked:
        if ledger.is_held:
            need, total = demand.need_micros, demand.total_micros
            granted |= charge(work, present[demand.budget], rules, demand.now, ledger, need, total)
        for decision, reserved in demand.reservations:
            work.insert_reservation(
                ReservationRow(
                    decision_id=decision.context.decision_id,
                    step=decision.context.step,
                    budget=demand.budget,
                    period_start=demand.key,
                    price_micros=reserved.amount_micros,
                    reserved_micros=reserved.amount_micros,
                    committed_micros=0,
                    expire_time=to_micros(reserved.expire_time),
                )
            )
    return granted


def settle(work: Unit, rules: Rules, decision_id: str, step: int, now: int, ledger: Ledger) -> None:
    """Bring the reservations of a step in line with its outcomes, in whatever order they came."""
    while True:
        rows = work.list_reservations(decision_id, step)
        outcomes = [o for o in work.list_outcomes(decision_id) if o.step == step] if rows else []
        if all(_change(work, rules, _settled(row, outcomes), row, now, ledger) for row in rows):
            return


def settle_expired(work: Unit, rules: Rules, now: int) -> None:
    """Count reservations that have expired as spent, and take back leases that have; the unit holds LEDGER."""
    for row in work.list_expired(now):
        # Where an outcome settles it at the same moment, that holds.
        _change(work, rules, replace(row, reserved_micros=0, committed_micros=row.price_micros), row, now, Ledger())
    end_expired(work, rules, now)


def standings(reader: Reader, rules: Rules, now: datetime) -> list[Standing]:
    """Return every budget of the rules in its present period, a total in its only one."""
    found = []
    for budget, of_file in zip(present_budgets(reader, rules), rules.budgets, strict=True):
        period, account = period_of(budget, rules, now), account_of(reader, budget, rules, now, Ledger())
        price = shadow_price(budget, rules, account.spending, now) if period.holds(now) else 0.0
        found.append(
            Standing(
                budget=budget,
                period=period,
                spending=account.spending,
                shadow_price=price,
                leased_micros=account.leased_micros,
                file_micros=of_file.amount,
            )
        )
    return found


def _settled(row: ReservationRow, outcomes: Iterable[OutcomeRow]) -> ReservationRow:
    """Return a reservation as the outcomes of its step leave it: SENT, or what follows it, wins over NOT_SENT; the latest actual cost holds."""
    seen = [outcome for outcome in outcomes if outcome.type in SETTLING]
    costs = [o.cost_micros for o in seen if o.type in _SENT and o.cost_micros is not None]
    if any(outcome.type in _SENT for outcome in seen):
        return replace(row, reserved_micros=0, committed_micros=costs[-1] if costs else row.price_micros)
    return replace(row, reserved_micros=0, committed_micros=0) if seen else row


def _change(work: Unit, rules: Rules, new: ReservationRow, old: ReservationRow, now: int, ledger: Ledger) -> bool:
    """Write a reservation and its budget anew where they differ; False where another has changed the reservation meanwhile."""
    if new == old:
        return True
    if not work.update_reservation(new, old):
        return False
    reserved = new.reserved_micros - old.reserved_micros
    committed = new.committed_micros - old.committed_micros
    add_settled(work, rules, old.budget, old.period_start, now, ledger, reserved, committed)
    return True


def _reserved_of(decision: Decision, state: BudgetState) -> Reservation | None:
    reserved, action = reservation_of(decision), decision.choice.action
    return reserved if reserved is not None and action is not None and state.counts(action.channel) else None


def _dearest_micros(decision: Decision, state: BudgetState) -> int:
    """Return the highest price that a decision could have paid out of a budget."""
    if decision.distribution is None or decision.context.mode is not Mode.LIVE:
        return 0
    table = decision.distribution.table
    counted = [state.counts(action.channel) for action in table.actions]
    return int(table.price_micros[counted].max(initial=0.0))
