"""Small Parquet files in the form of the outside logs, of worlds whose truth is known.

In the Starbucks-like world P(order within 72 hours) is 0.30 without an offer. A base or mobile lead adds 0.05 and 0.10 for everybody;
a social lead adds 0.40 for the young (under 40) and nothing for the others. A basket is exponential with a mean of 20 USD.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
HOURS = (0, 168, 336, 408)
BASKET = 20.0
P_NONE = 0.30
ADDED = {"none": (0.0, 0.0), "base": (0.05, 0.05), "mobile": (0.10, 0.10), "social": (0.0, 0.40)}
"""By lead: what it adds to P(order) of the old and of the young."""
P_VIEWED = 0.8
"""P(viewed | sent); an offer works through being viewed alone."""
BUNDLES: Mapping[str, tuple[int, int, int, int]] = {
    "none": (0, 0, 0, 0),
    "base": (1, 1, 0, 0),
    "mobile": (1, 1, 1, 0),
    "social": (0, 1, 1, 1),
    "everything": (1, 1, 1, 1),
}
"""By action: whether it goes out through web, email, mobile and social."""
SHARES = (0.25, 0.20, 0.20, 0.20, 0.15)
SCHEMA = {
    "customer_id": pa.int64(),
    "wave_hour": pa.int16(),
    "action": pa.large_string(),
    "ch_web": pa.int8(),
    "ch_email": pa.int8(),
    "ch_mobile": pa.int8(),
    "ch_social": pa.int8(),
    "n_channels": pa.int8(),
    "propensity": pa.float64(),
    "hours_to_view": pa.float32(),
    "spend_72h": pa.float32(),
    "txns_72h": pa.int16(),
    "spend_before": pa.float32(),
    "txns_before": pa.int16(),
    "offers_before": pa.int8(),
    "views_before": pa.int8(),
    "completions_before": pa.int8(),
    "gender": pa.large_string(),
    "age": pa.float32(),
    "income": pa.float64(),
    "tenure_days": pa.int16(),
}
EVENTS = {"customer_id": pa.int32(), "hour": pa.int16(), "event": pa.large_string(), "amount": pa.float32()}


@dataclass(frozen=True, kw_only=True)
class Starbucks:
    """Rows of the two files, one dictionary each."""

    decisions: list[dict[str, Any]]
    events: list[dict[str, Any]]

    def write(self, folder: Path) -> Path:
        """Write the files that the adapter reads."""
        write_rows(folder / "starbucks_decisions.parquet", self.decisions, SCHEMA)
        write_rows(folder / "starbucks_events.parquet", self.events, EVENTS)
        return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: Mapping[str, pa.DataType]) -> None:
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in schema.items()}
    pq.write_table(pa.table(columns), path)


def lead_of(action: str) -> str:
    return "social" if action == "everything" else action


def chance(action: str, is_young: bool) -> float:
    """The true P(order) of an action."""
    return P_NONE + ADDED[lead_of(action)][is_young]


def make_starbucks(customers: int, seed: int = 0, hours: Sequence[int] = HOURS) -> Starbucks:
    """Make the log of a number of customers at each wave."""
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 60, size=customers)
    is_known = rng.random(customers) < 0.9
    decisions: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    spent, bought = np.zeros(customers), np.zeros(customers, dtype=int)
    for hour in hours:
        for customer in range(customers):
            action = str(rng.choice(list(BUNDLES), p=SHARES))
            viewed = action != "none" and rng.random() < P_VIEWED
            added = chance(action, bool(age[customer] < 40)) - P_NONE
            ordered = rng.random() < P_NONE + viewed * added / P_VIEWED
            amount = float(rng.exponential(BASKET)) if ordered else 0.0
            bundle = BUNDLES[action]
            decisions.append(
                {
                    "customer_id": customer,
                    "wave_hour": hour,
                    "action": action,
                    **dict(zip(("ch_web", "ch_email", "ch_mobile", "ch_social"), bundle, strict=True)),
                    "n_channels": sum(bundle),
                    "propensity": SHARES[list(BUNDLES).index(action)],
                    "hours_to_view": float(rng.integers(0, 60)) if viewed else None,
                    "spend_72h": amount,
                    "txns_72h": int(ordered),
                    "spend_before": spent[customer],
                    "txns_before": bought[customer],
                    "offers_before": 0,
                    "views_before": 0,
                    "completions_before": 0,
                    "gender": ("F", "M", "O")[customer % 3] if is_known[customer] else None,
                    "age": float(age[customer]),
                    "income": 50_000.0 + 1000 * (customer % 40) if is_known[customer] else None,
                    "tenure_days": 100 + customer % 300,
                }
            )
            if ordered:
                moment = hour + int(rng.integers(0, 72))
                events.append({"customer_id": customer, "hour": moment, "event": "transaction", "amount": amount})
                spent[customer] += amount
                bought[customer] += 1
    return Starbucks(decisions=decisions, events=events)


HILLSTROM = {
    "customer_id": pa.int32(),
    "recency": pa.int8(),
    "history_segment": pa.large_string(),
    "history": pa.float64(),
    "mens": pa.int8(),
    "womens": pa.int8(),
    "zip_code": pa.large_string(),
    "newbie": pa.int8(),
    "channel": pa.large_string(),
    "segment": pa.large_string(),
    "visit": pa.int8(),
    "conversion": pa.int8(),
    "spend": pa.float64(),
    "propensity": pa.float64(),
}
SEGMENTS = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")


def make_hillstrom(customers: int, seed: int = 0, chances: Sequence[float] = (0.4, 0.3, 0.2)) -> list[dict[str, Any]]:
    """Make the test's rows: P(conversion) after men's e-mail, women's and none is the same for everybody."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for customer in range(customers):
        segment = int(rng.integers(3))
        bought = rng.random() < chances[segment]
        rows.append(
            {
                "customer_id": customer,
                "recency": int(rng.integers(1, 13)),
                "history_segment": ("1) $0 - $100", "2) $100 - $200")[customer % 2],
                "history": float(rng.gamma(2, 100)),
                "mens": int(rng.integers(2)),
                "womens": int(rng.integers(2)),
                "zip_code": ("Urban", "Rural", "Surburban")[customer % 3],
                "newbie": int(rng.integers(2)),
                "channel": ("Phone", "Web", "Multichannel")[customer % 3],
                "segment": SEGMENTS[segment],
                "visit": int(bought or rng.random() < 0.3),
                "conversion": int(bought),
                "spend": round(float(rng.exponential(50)), 2) if bought else 0.0,
                "propensity": 1 / 3,
            }
        )
    return rows


def write_hillstrom(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the file that the adapter reads."""
    write_rows(folder / "hillstrom_email_rct.parquet", rows, HILLSTROM)
    return folder
