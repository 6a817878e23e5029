"""The ledger of budgets: one for all replicas, with leases so that they need not wait for each other.

Who holds the lock LEDGER may reserve whatever a budget has left. Where several processes share a database, that lock would make the commits of all of
them follow one another. So a process that reserves under it sets a part of what is left aside for itself, its lease, and reserves out of that from then on,
in a row that nobody else writes. What it settles is added up in that row too. With leases

    reserved = budgets.reserved + sum over leases of (reserved - left)      committed = budgets.committed + sum over leases of committed
    reserved + committed + sum of what leases have left <= amount

and each step keeps that: granting moves money from what is left into a lease, taking moves it from a lease into a reservation. A lease is a part of what is left, so
that leases get smaller as the money runs out and none of it is hidden from others for longer than LEASE. No clock is trusted
for this: a lease that somebody has taken back is a row that its holder no longer finds.

Source: escrow of quantities, O'Neil (1986), "The Escrow Transactional Method".
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from models.budget import Spending, period_of, update_price
from models.record import from_micros, to_micros
from models.rules import Budget, Rules
from service.store.store import LEDGER, BudgetRow, LeaseRow, LedgerRow, Reader, Store, Unit

LEASE = timedelta(seconds=10)
"""How long a process may reserve out of a lease; the shadow price held is brought up to date as often."""
SHARE = 16
"""A lease is this part of what is left; near the end, when that pays for no send, there are none, and replicas take turns."""
_EVERYBODY = ""
_EVER = 2**62


class BudgetShort(Exception):
    """Raised in a unit of work when a budget has less left than the decisions took for granted; decide again with this much."""

    def __init__(self, budget: str, left_micros: int) -> None:
        self.budget = budget
        self.left_micros = left_micros
        super().__init__(f"budget {budget} has {left_micros} micros left")


class LeaseShort(Exception):
    """Raised in a unit of work when its process's leases do not suffice; run it again under LEDGER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger as a unit of work has it."""

    holder: str = _EVERYBODY
    """Whose leases are reserved from; empty: nobody has leases here."""
    is_held: bool = True
    """Whether the unit holds LEDGER."""

    @property
    def locks(self) -> tuple[int, ...]:
        """The locks that the unit is to take."""
        return (LEDGER,) if self.is_held else ()

    def held(self) -> "Ledger":
        """Return the ledger for a unit that holds LEDGER."""
        return replace(self, is_held=True)


def ledger_of(store: Store) -> Ledger:
    """Return how a new process uses a store's ledger: with leases where others may share it."""
    return Ledger(holder=secrets.token_hex(16), is_held=False) if store.is_shared else Ledger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of a budget in a period, and what of it others than one holder have leased, in micros."""

    spending: Spending
    leased_micros: int = 0

    def left_micros(self, amount: int) -> int:
        """Return what that holder may still reserve of an amount."""
        return max(0, amount - self.spending.spent_micros - self.leased_micros)


@dataclass(slots=True, kw_only=True)
class Hints:
    """Until when a process has leases, by budget, as far as it knows: which units may try without LEDGER."""

    until: dict[str, int] = field(default_factory=dict)

    def suffice(self, budgets: list[str], now: int) -> bool:
        """Tell whether leases of all these are worth a try."""
        return all(self.until.get(name, 0) > now for name in budgets)

    def note(self, granted: Mapping[str, int]) -> None:
        """Take in what was granted, until when."""
        self.until.update(granted)

    def forget(self, budgets: list[str]) -> None:
        """Take in that leases of these did not suffice."""
        for name in budgets:
            self.until.pop(name, None)


def present_budgets(reader: Reader, rules: Rules) -> tuple[Budget, ...]:
    """Return the budgets of the rules with the amounts that operators gave them since."""
    changes = reader.latest_budget_changes() if rules.budgets else {}
    return with_amounts(rules, {name: (row.amount_micros, row.file_micros) for name, row in changes.items()})


def with_amounts(rules: Rules, amounts: Mapping[str, tuple[int | None, int]]) -> tuple[Budget, ...]:
    """Return the budgets of the rules with the amounts that operators gave them; where the file changed since, it holds again."""
    return tuple(_with_amount(budget, *amounts.get(budget.name, (None, 0))) for budget in rules.budgets)


def _with_amount(budget: Budget, amount: int | None, of_file: int) -> Budget:
    return budget if amount is None or of_file != budget.amount else replace(budget, amount=amount)


def account_of(reader: Reader, budget: Budget, rules: Rules, now: datetime, ledger: Ledger) -> Account:
    """Return what became of a budget in its present period."""
    row = reader.find_budget(budget.name, key_of(budget, rules, now), ledger.holder, to_micros(now))
    return account(row, budget, rules, now)


def account(row: LedgerRow | None, budget: Budget, rules: Rules, now: datetime) -> Account:
    """Return what the row of a budget's latest period says of the present one; a new one begins with the price that the last one held."""
    key = key_of(budget, rules, now)
    if row is None or row.period_start != key:
        start = period_of(budget, rules, now).start
        return Account(spending=Spending(held_price=0.0 if row is None else row.held_price, price_time=start))
    return Account(spending=_spending(row), leased_micros=row.leased_micros)


def key_of(budget: Budget, rules: Rules, now: datetime) -> int:
    """Return under which start a budget's present period is stored; totals have one, so that a change of their dates forgets nothing."""
    return 0 if budget.period == "total" else to_micros(period_of(budget, rules, now).start)


def take(work: Unit, budget: str, key: int, now: int, ledger: Ledger, need: int, taken: int) -> None:
    """Take money for sends out of a lease.

    Raises
    ------
    LeaseShort: it has less than is needed, of which what is taken is a part.
    """
    if taken:
        if not work.take_lease(budget, key, ledger.holder, now, need, taken):
            raise LeaseShort
    elif work.find_lease(budget, key, ledger.holder, now) < need:
        raise LeaseShort


def charge(
    work: Unit, budget: Budget, rules: Rules, now: datetime, ledger: Ledger, need: int, taken: int
) -> Mapping[str, int]:
    """Take money for sends out of what is left, and a lease of what is left then; return until when it is leased. The unit holds LEDGER.

    Raises
    ------
    BudgetShort: less is left than is needed, of which what is taken is a part.
    """
    key, moment = key_of(budget, rules, now), to_micros(now)
    # The leases first: what is read after them cannot change any more in the ones that end here.
    left, reserved, committed = work.end_leases(budget.name, key, ledger.holder, moment)
    account = account_of(work, budget, rules, now, ledger)
    spending = account.spending
    spending = replace(
        spending,
        reserved_micros=spending.reserved_micros - left + reserved,
        committed_micros=spending.committed_micros + committed,
    )
    available = replace(account, spending=spending).left_micros(budget.amount)
    if need > available:
        raise BudgetShort(budget.name, available)
    lease = (available - taken) // SHARE if ledger.holder else 0
    lease = lease if lease >= need else 0
    if not (taken or lease or left or reserved or committed):
        return {}
    spending = update_price(budget, rules, spending, now)
    _add(work, budget.name, key, spending, taken + lease - left + reserved, committed)
    if not lease:
        return {}
    until = to_micros(now + LEASE)
    work.insert_lease(_lease(budget.name, key, ledger, until, left=lease))
    return {budget.name: until}


def add_settled(
    work: Unit, rules: Rules, budget: str, key: int, now: int, ledger: Ledger, reserved: int, committed: int
) -> None:
    """Add what was settled to what is reserved and committed of a budget's period; nothing where that is not known any more."""
    if not ledger.is_held:
        until = now + round(LEASE.total_seconds() * 1e6)
        work.add_lease(_lease(budget, key, ledger, until, reserved=reserved, committed=committed))
        return
    row = work.find_budget(budget, key, ledger.holder, now)
    if row is None or row.period_start != key:
        return
    spending = _spending(row)
    moment = from_micros(now)
    for known in present_budgets(work, rules):
        if known.name == budget and key_of(known, rules, moment) == key:
            spending = update_price(known, rules, spending, moment)
    _add(work, budget, key, spending, reserved, committed)


def end_expired(work: Unit, rules: Rules, now: int) -> None:
    """Take back what expired leases have left, and take what their holders settled into the ledger; the unit holds LEDGER."""
    for budget, key in work.list_expired_leases(now):
        left, reserved, committed = work.end_leases(budget, key, _EVERYBODY, now)
        add_settled(work, rules, budget, key, now, Ledger(), reserved - left, committed)


def end_all(work: Unit, budget: Budget, rules: Rules, now: datetime) -> None:
    """Take back every lease of a budget's present period; the unit holds LEDGER."""
    key = key_of(budget, rules, now)
    left, reserved, committed = work.end_leases(budget.name, key, _EVERYBODY, _EVER)
    if left or reserved or committed:
        add_settled(work, rules, budget.name, key, to_micros(now), Ledger(), reserved - left, committed)


def _spending(row: LedgerRow) -> Spending:
    return Spending(
        reserved_micros=row.reserved_micros,
        committed_micros=row.committed_micros,
        held_price=row.held_price,
        price_time=from_micros(row.price_time),
    )


def _lease(
    budget: str, key: int, ledger: Ledger, until: int, *, left: int = 0, reserved: int = 0, committed: int = 0
) -> LeaseRow:
    return LeaseRow(
        budget=budget,
        period_start=key,
        holder=ledger.holder,
        left_micros=left,
        reserved_micros=reserved,
        committed_micros=committed,
        expire_time=until,
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
