"""An independent check of what a fault run left behind: raw rows, read by SQL alone, against the rules file and what clients were told.

It shares no code with the service, and must not: what it finds wrong is wrong in the database, whoever wrote it.
"""

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
_HOUR = 3_600_000_000


@dataclass(kw_only=True)
class Findings:
    """What was checked, and what was found wrong: each violation with the invariant that it breaks."""

    decisions: int = 0
    sends: int = 0
    outcomes: int = 0
    acknowledged_decisions: int = 0
    acknowledged_outcomes: int = 0
    lost: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, invariant: str, problem: str) -> None:
        self.violations.append(f"{invariant}: {problem}")


def check(url: str, rules_file: Path, logs: Iterable[Path]) -> Findings:
    """Check the database at a URL, after a run of clients with these logs."""
    rules = tomllib.loads(rules_file.read_text())
    told = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    found = Findings()
    with psycopg.connect(url, row_factory=dict_row) as connection:

        def ask(question: str) -> list[Row]:
            return connection.execute(question).fetchall()

        decisions = ask(
            "SELECT decision_id, step, request_id, customer_key, decide_time, verdict, channel, send_time, price_micros, context, choice"
            " FROM decisions WHERE mode = 'live' ORDER BY decide_time"
        )
        contacts = ask("SELECT * FROM contacts")
        outcomes = ask("SELECT * FROM outcomes")
        found.decisions, found.outcomes = len(decisions), len(outcomes)
        found.sends = sum(row["verdict"] == "send" for row in decisions)
        for entry in told:
            if entry["kind"] == "refused":
                found.add("answers", f"a call was refused with {entry['code']} {entry['details']}")
        _check_requests(found, decisions, ask("SELECT * FROM requests"))
        _check_told(found, told, decisions, outcomes)
        _check_contacts(found, decisions, contacts, ask("SELECT customer_key FROM customers"))
        merged = _merged(told, decisions)
        _check_caps(found, rules, contacts, merged)
        _check_topics(found, rules, contacts, merged)
        _check_times(found, rules, decisions)
        ledger = _ledger(ask("SELECT * FROM budgets"), ask("SELECT * FROM leases"))
        _check_budgets(found, rules, decisions, ledger, ask("SELECT * FROM reservations"), outcomes)
        _check_consent(found, told, decisions, merged)
        _check_orders(found, told, decisions, merged)
    return found


def _check_requests(found: Findings, decisions: list[Row], requests: list[Row]) -> None:
    """One request_id, one decision; and what `requests` says is what the log says."""
    counts = Counter((row["request_id"], row["step"]) for row in decisions)
    for (request_id, step), count in counts.items():
        if count > 1:
            found.add("idempotency", f"request {request_id} step {step} decided {count} times")
    logged = {(row["request_id"], row["step"], row["decision_id"]) for row in decisions}
    kept = {(row["request_id"], row["step"], row["decision_id"]) for row in requests}
    for entry in sorted(logged ^ kept):
        found.add("idempotency", f"{entry} is in one of requests and decisions alone")


def _check_told(found: Findings, told: list[Row], decisions: list[Row], outcomes: list[Row]) -> None:
    """What was acknowledged is there, as it was told."""
    rows = {(row["decision_id"], row["step"]): row for row in decisions}
    ids: dict[str, str] = {}
    for entry in told:
        if entry["kind"] != "decision":
            continue
        found.acknowledged_decisions += 1
        row = rows.get((entry["decision_id"], entry["step"]))
        if row is None:
            found.lost += 1
            found.add(
                "durability", f"decision {entry['decision_id']} step {entry['step']} was answered and is not there"
            )
        elif row["verdict"] != entry["verdict"] or (row["verdict"] == "send" and row["channel"] != entry["channel"]):
            found.add("durability", f"decision {entry['decision_id']} was answered otherwise than it is kept")
        if entry["request_id"] and ids.setdefault(entry["request_id"], entry["decision_id"]) != entry["decision_id"]:
            found.add("idempotency", f"request {entry['request_id']} was answered with two decisions")
    events = {row["event_id"]: row for row in outcomes}
    for entry in told:
        if entry["kind"] != "outcome":
            continue
        found.acknowledged_outcomes += 1
        event = events.get(entry["event_id"])
        if event is None or event["type"] != entry["type"]:
            found.lost += 1
            found.add("durability", f"outcome {entry['event_id']} was answered {entry['status']} and is not there")
        elif event["status"] == "parked":
            found.add("durability", f"outcome {entry['event_id']} of a known decision is parked")


def _check_contacts(found: Findings, decisions: list[Row], contacts: list[Row], customers: list[Row]) -> None:
    """Each send made one contact, of the same person, and nothing else did; every person is there."""
    sends = {(row["decision_id"], row["step"]): row for row in decisions if row["verdict"] == "send"}
    made = {(row["decision_id"], row["step"]): row for row in contacts}
    for key in sorted(sends.keys() ^ made.keys()):
        found.add("atomicity", f"{key} is in one of sends and contacts alone")
    for key in sends.keys() & made.keys():
        if sends[key]["customer_key"] != made[key]["customer_key"]:
            found.add("identity", f"{key} and its contact are of two people")
    known = {row["customer_key"] for row in customers}
    for row in decisions:
        if row["customer_key"] not in known:
            found.add("identity", f"{row['decision_id']} is of a person who is not there")


def _merged(told: list[Row], decisions: list[Row]) -> set[str]:
    """People who were met by several identities apart: before it was known that they are one, caps and withdrawals of each held for each alone."""
    keys = {row["decision_id"]: row["customer_key"] for row in decisions}
    of_person = {
        entry["decision_id"]: int(entry["request_id"].rpartition("-")[2]) for entry in told if entry.get("request_id")
    }
    return {keys[decision_id] for decision_id, person in of_person.items() if person % 10 == 0 and decision_id in keys}


def _check_caps(found: Findings, rules: Row, contacts: list[Row], merged: set[str]) -> None:
    """No window of a cap has more sends than the cap, wherever within their slots they happen."""
    of_person: dict[str, list[Row]] = defaultdict(list)
    for row in contacts:
        if row["is_open"] and row["category"] == "marketing" and row["customer_key"] not in merged:
            of_person[row["customer_key"]].append(row)
    for key, rows in of_person.items():
        for cap in rules["caps"]:
            counted = [row for row in rows if cap.get("channel", row["channel"]) == row["channel"]]
            most = _most_in_window(counted, cap["window_hours"] * _HOUR)
            if most > cap["limit"]:
                found.add("caps", f"person {key} got {most} sends within cap {cap['name']} of {cap['limit']}")


def _most_in_window(rows: list[Row], window: int) -> int:
    """Return how many sends may lie within one window that ends with the slot of one of them, not counting its begin."""
    return max(
        (
            sum(o["start_time"] < row["end_time"] + window and o["end_time"] >= row["end_time"] for o in rows)
            for row in rows
        ),
        default=0,
    )


def _check_topics(found: Findings, rules: Row, contacts: list[Row], merged: set[str]) -> None:
    """Nobody gets the same topic of two messages within the topic cap."""
    of_topic: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in contacts:
        if row["is_open"] and row["topic"] and row["customer_key"] not in merged:
            of_topic[row["customer_key"], row["topic"]].append(row)
    window = rules["topic_cap"]["window_hours"] * _HOUR
    for (key, topic), rows in of_topic.items():
        for row in rows:
            near = [o for o in rows if o["start_time"] < row["end_time"] + window and o["end_time"] >= row["end_time"]]
            if len({o["decision_id"] for o in near}) > rules["topic_cap"]["limit"]:
                found.add("caps", f"person {key} got topic {topic} of several messages")


def _check_times(found: Findings, rules: Row, decisions: list[Row]) -> None:
    """No send lies in the quiet hours of its person, or after its message expired."""
    for row in decisions:
        if row["verdict"] != "send":
            continue
        context = json.loads(row["context"])
        send = _moment(row["send_time"])
        if send > datetime.fromisoformat(context["message"]["expire_time"]):
            found.add("expiry", f"{row['decision_id']} is sent after its message expired")
        if send < _moment(row["decide_time"]) - timedelta(seconds=1):
            found.add("expiry", f"{row['decision_id']} is sent before it was decided")
        if rules["channels"][row["channel"]].get("quiet_hours") != "none":
            local = send.astimezone(ZoneInfo(context["customer"]["time_zone"])).strftime("%H:%M:%S.%f")
            if local >= rules["quiet_hours"]["start"] or local < rules["quiet_hours"]["end"]:
                found.add("quiet hours", f"{row['decision_id']} is sent through {row['channel']} at {local}")


def _ledger(budgets: list[Row], leases: list[Row]) -> list[Row]:
    """Return what each budget's period has reserved and committed for sends, and what is leased of it."""
    sums = {(row["budget"], row["period_start"]): dict(row, leased_micros=0) for row in budgets}
    for row in leases:
        total = sums[row["budget"], row["period_start"]]
        total["reserved_micros"] += row["reserved_micros"] - row["left_micros"]
        total["committed_micros"] += row["committed_micros"]
        total["leased_micros"] += row["left_micros"]
    return list(sums.values())


def _check_budgets(
    found: Findings, rules: Row, decisions: list[Row], budgets: list[Row], reservations: list[Row], outcomes: list[Row]
) -> None:
    """The ledger is within each budget and the sum of its reservations; each reservation is what the outcomes of its send say."""
    amounts = {budget["name"]: int(Decimal(budget["amount"]) * 1_000_000) for budget in rules["budgets"]}
    channels = {budget["name"]: budget.get("channel") for budget in rules["budgets"]}
    sums: Counter[tuple[str, int, str]] = Counter()
    for row in reservations:
        for name in ("reserved_micros", "committed_micros"):
            sums[row["budget"], row["period_start"], name] += row[name]
    for row in budgets:
        key = row["budget"], row["period_start"]
        parts = [row[name] for name in ("reserved_micros", "committed_micros", "leased_micros")]
        if sum(parts) > amounts[row["budget"]] or min(parts) < 0:
            found.add("budgets", f"{key} has reserved, committed and leased {parts} of {amounts[row['budget']]}")
        for name in ("reserved_micros", "committed_micros"):
            if row[name] != sums[(*key, name)]:
                found.add("budgets", f"{key} says {name} {row[name]}, its reservations {sums[(*key, name)]}")
    seen: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row in outcomes:
        seen[row["decision_id"], row["step"]].add(row["type"])
    held = {(row["decision_id"], row["step"], row["budget"]): row for row in reservations}
    due = {
        (row["decision_id"], row["step"], name): row["price_micros"]
        for row in decisions
        for name in amounts
        if row["verdict"] == "send" and row["price_micros"] and channels[name] in (None, row["channel"])
    }
    for entry in sorted(held.keys() ^ due.keys()):
        found.add("budgets", f"{entry} is in one of reservations and paid sends alone")
    for entry in held.keys() & due.keys():
        is_settled, is_sent = _settling(seen[entry[0], entry[1]])
        expected = (0 if is_settled else due[entry], due[entry] if is_sent else 0)
        if (held[entry]["reserved_micros"], held[entry]["committed_micros"]) != expected:
            found.add("budgets", f"{entry} does not hold what its outcomes say")


def _settling(types: set[str]) -> tuple[bool, bool]:
    """Tell whether outcomes settle a reservation, and whether as sent."""
    is_sent = bool(types & {"sent", "delivered", "undelivered"})
    return is_sent or "not_sent" in types, is_sent


def _check_consent(found: Findings, told: list[Row], decisions: list[Row], merged: set[str]) -> None:
    """After a withdrawal was acknowledged nothing is decided to be sent through that channel."""
    keys = {row["decision_id"]: row["customer_key"] for row in decisions}
    withdrawn: dict[tuple[str, str], float] = {}
    for entry in told:
        is_withdrawal = entry["kind"] == "denied" or (entry["kind"] == "outcome" and entry["type"] == "unsubscribe")
        if is_withdrawal and entry["decision_id"] in keys:
            person = keys[entry["decision_id"]], entry["channel"]
            withdrawn[person] = min(entry["answered"], withdrawn.get(person, entry["answered"]))
    for row in decisions:
        since = withdrawn.get((row["customer_key"], row["channel"]))
        if (
            since is not None
            and row["customer_key"] not in merged
            and row["verdict"] == "send"
            and row["decide_time"] > since * 1_000_000
        ):
            found.add("consent", f"{row['decision_id']} is sent through {row['channel']} after that was withdrawn")


def _check_orders(found: Findings, told: list[Row], decisions: list[Row], merged: set[str]) -> None:
    """After an order was acknowledged no step of a cascade that had begun before it is sent."""
    first = {row["decision_id"]: row for row in decisions if row["step"] == 1}
    ordered: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for entry in told:
        if entry["kind"] == "outcome" and entry["type"] == "order" and entry["decision_id"] in first:
            key = first[entry["decision_id"]]["customer_key"]
            ordered[key].append((entry["happened"] * 1e6, entry["answered"] * 1e6))
    for row in decisions:
        if row["step"] == 1 or row["verdict"] != "send" or row["customer_key"] in merged:
            continue
        begun = first[row["decision_id"]]["decide_time"]
        if any(
            happened >= begun and answered < row["decide_time"] for happened, answered in ordered[row["customer_key"]]
        ):
            found.add("stop on order", f"{row['decision_id']} step {row['step']} is sent after an order")


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def sample_budgets(url: str, rules_file: Path) -> Iterator[str]:
    """Look at the ledger once; yield what is beyond its budget at that moment."""
    amounts = {
        b["name"]: int(Decimal(b["amount"]) * 1_000_000) for b in tomllib.loads(rules_file.read_text())["budgets"]
    }
    with psycopg.connect(url, connect_timeout=2) as connection:
        for name, spent in connection.execute(
            "SELECT budget, reserved_micros + committed_micros + (SELECT coalesce(sum(l.reserved_micros + l.committed_micros), 0)"
            " FROM leases l WHERE l.budget = b.budget AND l.period_start = b.period_start) FROM budgets b"
        ).fetchall():
            if spent > amounts[name]:
                yield f"budgets: {name} stood at {spent} of {amounts[name]}"
