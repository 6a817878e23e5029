"""Planning a campaign within a budget: hulls, the shadow price, the linear programme, and two Dask workers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from tests.training.examples import NOW, RULES_TOML, world, write_fitted
from training.__main__ import main
from training.fit import fit
from training.grow import Hyperparameters
from training.plan import Hulls, Planned, choose, dask_engine, hull, local_engine, make_plan, solve

COSTS = st.lists(st.sampled_from([0.0, 1.0, 2.5, 5.3, 18.0]), min_size=1, max_size=8)


def random_hulls(messages: int, seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], Hulls]:
    """Return the actions of messages, and their hulls."""
    rng = np.random.default_rng(seed)
    actions, parts = [], []
    for number in range(messages):
        cost = np.r_[0.0, 0.0, rng.choice([2.4, 4.1, 5.3, 18.0], 3)]
        value = np.r_[0.0, rng.gamma(1.0, 3.0), rng.gamma(1.0, 8.0, 3) - cost[2:]]
        actions.append((cost, value))
        places = hull(cost, value)
        parts.append((np.full(len(places), number), cost[places], value[places]))
    message, cost, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    channels = np.array(["none"] * len(cost))
    return actions, Hulls(message=message, channel=channels, send_time=np.full(len(cost), -1), cost=cost, value=value)


def optimum(actions: list[tuple[np.ndarray, np.ndarray]], budget: float) -> float:
    """The linear programme's optimum, by HiGHS: each message one action in shares, all within the budget."""
    cost = np.concatenate([c for c, _ in actions])
    value = np.concatenate([v for _, v in actions])
    owner = np.repeat(np.arange(len(actions)), [len(c) for c, _ in actions])
    each = (owner == np.arange(len(actions))[:, None]).astype(float)
    found = linprog(-value, A_ub=cost[None, :], b_ub=[budget], A_eq=each, b_eq=np.ones(len(actions)), method="highs")
    assert found.status == 0
    assert found.fun is not None
    return -float(found.fun)


def solved(parts: list[Hulls], budget: float, folder: Path) -> Planned:
    paths = []
    for number, part in enumerate(parts):
        paths.append(folder / f"{number}.npz")
        part.save(paths[-1])
    with local_engine(1) as engine:
        return solve(paths, budget, engine)[0]


@given(COSTS, st.integers(0, 1000), st.floats(0, 20))
def test_the_best_action_at_any_price_is_on_the_hull(costs: list[float], seed: int, price: float) -> None:
    """Leaving out what is not on the hull loses nothing, whatever money is worth."""
    cost = np.r_[0.0, costs]
    value = np.r_[0.0, np.random.default_rng(seed).normal(0, 10, len(costs))]
    places = hull(cost, value)

    assert (value - price * cost).max() == pytest.approx((value[places] - price * cost[places]).max(), abs=1e-9)
    assert np.all(np.diff(cost[places]) > 0)
    assert np.all(np.diff(value[places]) > 0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.7, 1.5])
def test_a_plan_is_within_the_budget_and_near_the_optimum(tmp_path: Path, share: float) -> None:
    """Over three partitions: never above the budget, within 1 % of the linear programme, and the bound is above it."""
    parts = [random_hulls(150, seed) for seed in range(3)]
    actions = [pair for of_part, _ in parts for pair in of_part]
    free = sum(float(hulls.cost[choose(hulls, 0.0)].sum()) for _, hulls in parts)
    budget = share * free
    planned = solved([hulls for _, hulls in parts], budget, tmp_path)
    best = optimum(actions, budget)

    assert planned.spend <= budget + 1e-9
    assert 0.99 * best <= planned.value <= best + 1e-6
    assert planned.bound >= best - 1e-6 * best
    assert planned.messages == 450
    assert (planned.shadow_price > 0) == (share < 1)


def test_equal_messages_share_a_budget_that_pays_for_some(tmp_path: Path) -> None:
    """Where all messages are alike, just as many get the paid send as the money pays for."""
    cost, value = np.tile([0.0, 5.0], 100), np.tile([1.0, 11.0], 100)
    hulls = Hulls(
        message=np.repeat(np.arange(100), 2),
        channel=np.tile(["push", "sms"], 100),
        send_time=np.zeros(200, dtype=np.int64),
        cost=cost,
        value=value,
    )
    planned = solved([hulls], 52.0, tmp_path)

    assert planned.sends == {"push": 90, "sms": 10}
    assert planned.value == pytest.approx(90 + 110)
    assert planned.shadow_price == pytest.approx(2.0)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, rules and the requests of a campaign."""
    folder = tmp_path_factory.mktemp("campaign")
    write_fitted(folder / "bundle", "plan", fit(world(4000), Hyperparameters(), "world"))
    (folder / "rules.toml").write_text(RULES_TOML)
    rng = np.random.default_rng(0)
    count = 120
    table = pa.table(
        {
            "request_id": [f"r-{number}" for number in range(count)],
            "customer_id": [f"c-{number}" for number in range(count)],
            "decide_time": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            "campaign": ["spring"] * count,
            "kind": ["abandoned_cart"] * count,
            "order_margin": rng.uniform(100, 900, count),
            "eligible": [["push", "sms"]] * count,
            "x_young": rng.integers(2, size=count).astype(float),
            "x_noise": rng.normal(size=count),
        }
    )
    pq.write_table(table, folder / "requests.parquet")
    return folder


def test_the_command_plans_within_the_budget(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who gets what is written down with its price and value, the sum of prices is within the budget, and what more would earn is told."""
    target = tmp_path / "plan.parquet"
    command = ["plan", "--requests", str(campaign / "requests.parquet"), "--bundle", str(campaign / "bundle")]
    code = main([*command, "--rules", str(campaign / "rules.toml"), "--budget", "60", "--to", str(target)])

    assert code == 0
    plan = pq.read_table(target).to_pydict()
    assert plan["request_id"] == [f"r-{number}" for number in range(120)]
    assert 0 < sum(plan["price"]) <= 60
    assert {channel for channel, price in zip(plan["channel"], plan["price"], strict=True) if price > 0} == {"sms"}
    assert all(
        (moment is None) == (channel == "none")
        for moment, channel in zip(plan["send_time"], plan["channel"], strict=True)
    )
    said = capsys.readouterr().out
    assert "120: " in said
    assert "shadow price" in said


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_plan_as_one_process_does(
    campaign: Path, tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask cluster of two workers gives the plan of this process, to the bit."""
    found = {}
    monkeypatch.setattr("training.plan.PARTITION", 50)
    for name, engine in (("local", local_engine(1)), ("dask", dask_engine(cluster))):
        scratch = tmp_path / name
        scratch.mkdir()
        with engine as mapper:
            planned = make_plan(
                campaign / "requests.parquet",
                campaign / "rules.toml",
                campaign / "bundle",
                60.0,
                scratch / "plan.parquet",
                mapper,
                scratch,
            )
        assert len(list(scratch.glob("*.npz"))) == 3
        found[name] = (planned, pq.read_table(scratch / "plan.parquet"))

    assert found["dask"][0] == found["local"][0]
    assert found["dask"][1].equals(found["local"][1])


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_what_cannot_be_planned_is_refused(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown channel, a column of a log, no rows, no file and no cluster are each named with the way out."""
    table = pq.read_table(campaign / "requests.parquet")
    command = ["plan", "--bundle", str(campaign / "bundle"), "--rules", str(campaign / "rules.toml"), "--budget", "5"]
    command += ["--to", str(tmp_path / "plan.parquet"), "--requests"]
    path = tmp_path / "requests.parquet"
    pq.write_table(table.append_column("propensity", pa.array([0.5] * 120)), path)
    assert "propensity" in refused([*command, str(path)], capsys)
    pq.write_table(table.set_column(table.column_names.index("eligible"), "eligible", [[["fax"]] * 120]), path)
    assert "no channel of the rules" in refused([*command, str(path)], capsys)
    pq.write_table(table.slice(0, 0), path)
    assert "nothing to plan" in refused([*command, str(path)], capsys)
    path.write_text("no Parquet")
    assert "cannot be read as Parquet" in refused([*command, str(path)], capsys)
    assert "--cluster" in refused([*command, str(path), "--engine", "dask"], capsys)
