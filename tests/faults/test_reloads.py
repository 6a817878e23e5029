"""Bundles are swapped under load without a failed call or an answer that mixes two; and a mix would be seen."""

from pathlib import Path

from tests.faults.reloads import run


def test_swaps_under_load_fail_no_call_and_mix_no_answer(tmp_path: Path) -> None:
    """While the alias moves between good, corrupt and missing bundles every call is answered, by one bundle alone, which gives that answer again."""
    report = run(tmp_path, swaps=10, threads=4)

    assert report.failed == []
    assert report.mixed == []
    assert (report.swaps, report.refusals, len(report.by_version), report.exit_code) == (10, 2, 2, 0)
    assert report.calls.keys() == {"choices", "batches", "advances", "reports"}
    assert report.told_apart == report.checked >= 20
