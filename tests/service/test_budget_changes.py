"""Budgets that operators change while the service runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.gen.channelchoice.v1.admin_service_pb2 import Budget, SetBudgetRequest
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND
from tests.service.examples import DAY, rubles
from tests.service.served import Served, refused
from tests.service.test_budgets import SMS, budget, budgets_of, is_exhausted, serve_with, sms

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A service with a budget of two SMS a day."""
    with serve_with(tmp_path, budget("10.60")) as served:
        yield served


def set_to(service: Served, amount: float | None, name: str = "day", reason: str = "a test") -> Budget:
    cap = None if amount is None else rubles(amount)
    return service.admin.SetBudget(SetBudgetRequest(budget=name, cap=cap, reason=reason)).budget


def sent(service: Served, numbers: range) -> int:
    """Ask for an SMS for each of these customers at once, and return how many are sent."""
    with ThreadPoolExecutor(8) as clients:
        return sum(d.verdict == VERDICT_SEND for d in clients.map(service.decide, map(sms, numbers)))


def test_a_greater_amount_counts_from_the_next_decision_on(service: Served) -> None:
    """After a raise just as many more are sent as it pays for, and the budget shows both amounts."""
    assert sent(service, range(8)) == 2
    changed = set_to(service, 21.2)

    assert (changed.cap, changed.file_cap) == (rubles(21.2), rubles(10.6))
    assert sent(service, range(10, 20)) == 2
    (found,) = budgets_of(service)
    assert found.reserved.micros + found.committed.micros == 4 * SMS
    assert found.cap == rubles(21.2)


def test_a_smaller_amount_is_kept_too_and_holds_in_later_periods(service: Served) -> None:
    """Less than before but more than is spent is taken; the next day begins with it, until it is taken back."""
    assert sent(service, range(1)) == 1
    set_to(service, 5.3)
    assert is_exhausted(service.decide(sms(50)))
    service.clock.move(DAY)

    assert sent(service, range(100, 108)) == 1
    assert set_to(service, None).cap == rubles(10.6)
    assert sent(service, range(110, 118)) == 1


def test_less_than_is_spent_is_refused(service: Served) -> None:
    """An amount below what is set aside would break the budget; it is refused with the figure, and nothing changes."""
    assert sent(service, range(2)) == 2
    with refused() as low:
        set_to(service, 10.0)

    assert "10.60 that are spent or set aside" in low[0].violations["cap"]
    assert budgets_of(service)[0].cap == rubles(10.6)


def test_what_cannot_be_set_is_refused_by_field(service: Served) -> None:
    """No name, no reason, an amount of 0, another currency and an unknown budget are each named."""
    with refused() as empty:
        set_to(service, 0.0, name="", reason="")
    assert set(empty[0].violations) == {"budget", "reason", "cap.micros"}
    with refused() as unknown:
        set_to(service, 5.0, name="none")
    assert unknown[0].code.name == "NOT_FOUND"


def test_a_changed_file_holds_again(tmp_path: Path) -> None:
    """What was set is kept over a restart, until the file itself says another amount."""
    with serve_with(tmp_path, budget("10.60")) as service:
        set_to(service, 100)
    with serve_with(tmp_path, budget("10.60")) as service:
        assert budgets_of(service)[0].cap == rubles(100)
    with serve_with(tmp_path, budget("15.90")) as service:
        assert budgets_of(service)[0].cap == rubles(15.9)
