"""The starter bundle: made from nothing, the same each time, and good enough to decide with from the first start."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle import listed_files, load_bundle
from models.context import Verdict
from models.rules import Rules, read_rules
from service.example import example_request
from service.rpc.parse import parse_choose
from service.settings import DEFAULT_RULES
from tests.service.served import MovedClock
from tests.training.examples import in_process
from training.starter import has_bundle

_SMALL = """
import sys
from pathlib import Path
import training.starter
from models.rules import read_rules
training.starter.DECISIONS = 1500
print(training.starter.make_starter(Path(sys.argv[1]), read_rules(Path(sys.argv[2]))))
"""


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The starter bundle, as the first start makes it."""
    place = tmp_path_factory.mktemp("starter") / "bundle"
    command = [sys.executable, "-m", "training", "starter", str(place)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith(f"{place}: {load_bundle(place).version}")
    return place


@pytest.fixture(scope="session")
def rules() -> Rules:
    return read_rules(DEFAULT_RULES)


def test_same_rules_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Two processes that make a starter under the same rules, here of a small log, make the same, file by file."""
    runs = [
        subprocess.Popen([sys.executable, "-c", _SMALL, str(tmp_path / name), str(DEFAULT_RULES)], cwd=root)
        for name in ("one", "two")
    ]
    assert [run.wait() for run in runs] == [0, 0]

    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))

    assert set(one) == {"manifest.json", *listed_files(one["manifest.json"])}
    assert {"bundle.json", "response.txt", "golden.json", "funnel.json"} < set(one)
    assert one == two


def test_starter_knows_every_channel_of_the_rules(starter: Path, rules: Rules) -> None:
    """The model has seen each channel, and what callers of the example send; channels that annoy have a rate."""
    description = load_bundle(starter).description

    columns = {column.name: column for column in description.columns}
    assert set(columns["channel"].categories) == {"none", *rules.channels}
    assert {"x.app_sessions_30d", "x.email_opens_90d", "x.orders_365d", "message_kind"} <= set(columns)
    assert set(description.unsubscribe_rates) == set(rules.channels)
    assert all(0 < rate < 0.05 for rate in description.unsubscribe_rates.values())
    assert description.trained_on["log"] == "simulated"


def test_starter_serves(starter: Path, rules: Rules, tmp_path: Path) -> None:
    """The example request is decided by the bundle, not by the rule cascade, over several channels with chances that differ."""
    with in_process(tmp_path, rules, bundle=str(starter), clock=MovedClock()) as service:
        requests = [parse_choose(example_request(), rules, service.clock.now())[0] for _ in range(20)]
        decisions = [service.decisions.choose(request).decision for request in requests]

    scored = [d for d in decisions if d.choice.verdict is not Verdict.HOLDOUT]
    assert len(scored) >= 15
    for decision in scored:
        assert decision.choice.degraded == ()
        assert decision.choice.bundle_version == load_bundle(starter).version
        assert decision.distribution is not None
        p_response = decision.distribution.table.p_response
        assert len(set(p_response.tolist())) > 3
        assert all(0.0005 < p < 0.5 for p in p_response)
        assert max(decision.distribution.table.uplift) > 0


def test_starter_is_not_made_again(starter: Path, root: Path, tmp_path: Path) -> None:
    """Told to make one only if there is none, a second run leaves the folder as it is."""
    before = (starter / "manifest.json").stat()
    command = [sys.executable, "-m", "training", "starter", "--if-missing", str(starter)]

    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)

    assert run.stdout == f"{starter} holds a bundle already\n"
    assert (starter / "manifest.json").stat() == before
    assert has_bundle(starter)
    assert not has_bundle(tmp_path)
