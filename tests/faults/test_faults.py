"""Nothing acknowledged is lost and no invariant is broken while services and PostgreSQL are killed; and the checker would see it."""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_SENT
from tests.faults import checker
from tests.faults.checker import Findings, check
from tests.faults.run import RULES_FILE, Plan, run
from tests.postgres import PostgresServer
from tests.service.examples import NOW, choose_request, outcome, stamp
from tests.service.served import connected, serve

AT_NIGHT = "(extract(epoch from timestamptz '2026-11-05 00:30:00Z') * 1000000)::bigint"


def test_no_kill_loses_or_breaks_anything(tmp_path: Path) -> None:
    """Two services and PostgreSQL, killed with -9 under load, keep every answer that they gave and every invariant of the design."""
    report = run(Plan(seconds=15, kills=5, servers=2, clients=2, people_per_second=4, seed=3), tmp_path)

    assert report.findings.violations == []
    assert report.findings.lost == 0
    assert set(report.exits) == {0}
    assert sum(report.faults.values()) == 5
    assert report.faults["kill -9 PostgreSQL"] >= 1
    assert report.findings.acknowledged_decisions >= 50
    assert report.samples > 0


def test_the_checker_shares_nothing_with_the_service() -> None:
    """The checker imports no module of the project, so that no mistake of the service can hide in it."""
    tree = ast.parse(Path(checker.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert not {str(name).partition(".")[0] for name in imported} & {"service", "models", "training", "tests"}


# --- what the checker finds


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A sound database with a few sends, and what their callers were told."""

    url: str
    log: Path

    def findings(self, *told: dict[str, Any]) -> Findings:
        with self.log.open("a") as log:
            log.writelines(json.dumps(entry) + "\n" for entry in told)
        return check(self.url, RULES_FILE, [self.log])


@pytest.fixture
def kept(tmp_path: Path, postgres: PostgresServer) -> Iterator[Kept]:
    url, log = postgres.make_migrated(), tmp_path / "client.jsonl"
    told: list[dict[str, Any]] = []
    with serve(tmp_path, RULES_FILE.read_text(), database_url=url) as service:
        for number, channel in enumerate(["push", "sms", "in_app"]):
            request = choose_request(f"1-{number}-1", customer="one", channels=[channel])
            request.message.expire_time.CopyFrom(stamp(NOW + timedelta(hours=30)))
            decision = service.decide(request)
            told.append({"kind": "decision", "request_id": request.request_id, "decision_id": decision.decision_id})
            told[-1] |= {"step": 1, "verdict": "send", "channel": decision.channel}
            event = outcome(f"e{number}", OUTCOME_TYPE_SENT, decision_id=decision.decision_id)
            event.occur_time.CopyFrom(decision.send_time)
            service.report(event)
            told.append({"kind": "outcome", "event_id": f"e{number}", "decision_id": decision.decision_id})
            told[-1] |= {"type": "sent", "channel": channel, "status": "ACCEPTED", "answered": 0.0, "happened": 0.0}
    log.write_text("".join(json.dumps(entry) + "\n" for entry in told))
    yield Kept(url=url, log=log)
    postgres.drop(url)


def test_a_sound_database_is_found_sound(kept: Kept) -> None:
    """What the service wrote is found without a violation, and all of it is looked at."""
    found = kept.findings()

    assert found.violations == []
    assert (found.decisions, found.sends, found.outcomes) == (3, 3, 3)
    assert (found.acknowledged_decisions, found.acknowledged_outcomes, found.lost) == (3, 3, 0)


@pytest.mark.parametrize(
    ("harm", "invariant"),
    [
        ("DELETE FROM decisions WHERE channel = 'push'", "durability"),
        ("DELETE FROM outcomes WHERE event_id = 'e1'", "durability"),
        ("UPDATE outcomes SET status = 'parked' WHERE event_id = 'e1'", "durability"),
        ("UPDATE decisions SET channel = 'email' WHERE channel = 'push'", "durability"),
        ("UPDATE decisions SET verdict = 'defer' WHERE channel = 'push'", "durability"),
        ("DELETE FROM requests WHERE request_id = '1-0-1'", "idempotency"),
        ("UPDATE decisions SET request_id = '1-0-1' WHERE request_id = '1-1-1'", "idempotency"),
        ("DELETE FROM contacts WHERE channel = 'push'", "atomicity"),
        ("UPDATE contacts SET customer_key = 'other' WHERE channel = 'push'", "identity"),
        ("DELETE FROM customers", "identity"),
        ("INSERT INTO contacts SELECT 'd4', 1, customer_key, channel, '', category, start_time, end_time, true FROM contacts"
         " WHERE channel = 'push'", "caps"),
        ("INSERT INTO contacts SELECT 'd4', 1, customer_key, channel, '', category, start_time + 5 * 86400000000::bigint,"
         " end_time + 5 * 86400000000::bigint, true FROM contacts WHERE channel = 'sms'", "caps"),
        ("UPDATE contacts SET topic = 'same'", "caps"),
        ("UPDATE budgets SET reserved_micros = reserved_micros + 1", "budgets"),
        ("UPDATE budgets SET committed_micros = 30000000000 WHERE budget = 'all'", "budgets"),
        ("INSERT INTO leases SELECT budget, period_start, 'other', 1, 0, 0, 0 FROM budgets", "budgets"),
        ("INSERT INTO leases SELECT budget, period_start, 'other', 0, 0, 1, 0 FROM budgets", "budgets"),
        ("UPDATE reservations SET reserved_micros = price_micros", "budgets"),
        ("DELETE FROM reservations WHERE budget = 'all'", "budgets"),
        (f"UPDATE decisions SET send_time = {AT_NIGHT} WHERE channel = 'push'", "quiet hours"),
        ("UPDATE decisions SET send_time = send_time + 4 * 86400000000::bigint WHERE channel = 'in_app'", "expiry"),
        ("UPDATE decisions SET send_time = decide_time - 3600000000 WHERE channel = 'in_app'", "expiry"),
    ],
)  # fmt: skip
def test_each_violation_is_found(kept: Kept, harm: str, invariant: str) -> None:
    """Every way in which rows may break an invariant is told under its name."""
    with connected(kept.url) as run_sql:
        run_sql(harm)

    assert invariant in {violation.partition(":")[0] for violation in kept.findings().violations}


def test_a_send_after_a_withdrawal_is_found(kept: Kept) -> None:
    """A decision to send through a channel that was withdrawn, and acknowledged, before is told."""
    with connected(kept.url) as run_sql:
        ((decision_id,),) = run_sql("SELECT decision_id FROM decisions WHERE channel = 'in_app'").fetchall()

    denied = {"kind": "denied", "decision_id": decision_id, "channel": "push", "answered": NOW.timestamp() - 1}
    found = kept.findings(denied)

    assert [violation.partition(":")[0] for violation in found.violations] == ["consent"]


def test_a_step_after_an_order_is_found(kept: Kept) -> None:
    """A later step that is sent though an order was acknowledged after the first is told."""
    with connected(kept.url) as run_sql:
        ((decision_id,),) = run_sql("SELECT decision_id FROM decisions WHERE channel = 'in_app'").fetchall()
        run_sql(
            "UPDATE decisions SET decide_time = decide_time + 60000000, step = 2, decision_id = ? WHERE channel = 'push'",
            decision_id,
        )
    order = {"kind": "outcome", "event_id": "e0", "decision_id": decision_id, "type": "order", "channel": "in_app"}
    order |= {"status": "ACCEPTED", "answered": NOW.timestamp() + 30, "happened": NOW.timestamp() + 20}

    assert "stop on order" in {violation.partition(":")[0] for violation in kept.findings(order).violations}


def test_a_refusal_other_than_try_again_is_found(kept: Kept) -> None:
    """A call that was told anything but to try again while something was down is told."""
    found = kept.findings({"kind": "refused", "code": "INTERNAL", "details": "KeyError"})

    assert found.violations == ["answers: a call was refused with INTERNAL KeyError"]
