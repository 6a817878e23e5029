"""The report: what it concludes, what it refuses, and the page that people read."""

import csv
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from mlflow.tracking import MlflowClient

from models.rules import Metric
from tests.experiments.shop import CONTROL, EXPERIMENT, TREATED, Shop
from tests.training.examples import RULES_TOML, run_sql
from training.__main__ import main
from training.experiments.analysis import Analysis, Trouble, analyse
from training.experiments.kpis import KPIS
from training.experiments.page import Page
from training.experiments.people import read_people
from training.experiments.report import make_report, metrics_of, read_changes
from training.experiments.statistics import ReasonCode, Verdict
from training.experiments.words import LANGUAGES, Language

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")
VOID = {"meta", "br", "circle", "line", "rect", "polyline", "polygon"}


class Checker(HTMLParser):
    """Reads a page, and fails where a tag is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in ("h1", "h2"):
            self.headings.append(data)


def analysis_of(shop: Shop) -> Analysis:
    return analyse(read_people(shop.url, shop.experiment, shop.rules), read_changes(shop.url, "order"))


def page_of(analysis: Analysis, shop: Shop, language: Language = "en") -> str:
    return Page(analysis=analysis, rules=shop.rules, language=language, log="the log").html()


def test_a_clear_effect_is_shipped_with_the_right_size(shop: Shop) -> None:
    """Where the treated variant orders more than twice as often, the report says ship, and its interval holds the true difference."""
    analysis = analysis_of(shop)
    (treatment,) = analysis.treatments

    assert analysis.verdict(treatment) is Verdict.SHIP
    conversion = treatment.comparisons["conversion"]
    assert conversion.low < 0.95 * (0.4 - 0.15) < conversion.high
    assert analysis.figures[TREATED]["orders"].mean == pytest.approx(shop.mean(TREATED, "orders"))
    assert analysis.figures[CONTROL]["spend"].mean == pytest.approx(shop.mean(CONTROL, "spend"))


def test_money_is_the_difference_over_all_who_were_exposed(shop: Shop) -> None:
    """Saved and earned are differences per customer times the customers of the treated variant."""
    analysis = analysis_of(shop)
    (treatment,) = analysis.treatments
    exposed = analysis.people.exposed[TREATED]

    assert treatment.money.net_earned == pytest.approx(treatment.comparisons["net_value"].difference * exposed)
    assert treatment.money.net_earned_low < treatment.money.net_earned < treatment.money.net_earned_high


def test_lost_customers_refuse_the_verdict(own_shop: Shop) -> None:
    """Where a third of one variant's customers is missing, the report says so, and gives no verdict however great the effect."""
    run_sql(
        own_shop.url,
        "DELETE FROM exposures WHERE variant = ? AND customer_key < '5'",
        TREATED,
    )
    analysis = analysis_of(own_shop)
    (treatment,) = analysis.treatments

    assert analysis.ratio.is_mismatch
    assert analysis.verdict(treatment) is Verdict.UNDECIDED
    assert [reason.code for reason in treatment.ruling.reasons] == [ReasonCode.SAMPLE_RATIO_MISMATCH]
    assert "did not come in the shares set" in page_of(analysis, own_shop)


def test_a_changed_allocation_refuses_the_verdict(own_shop: Shop) -> None:
    """Where customers were drawn with other weights from a day on, variants hold customers of different times; the report notices."""
    middle = run_sql(own_shop.url, "SELECT avg(expose_time) FROM exposures")[0][0]
    for variant, probability in ((CONTROL, 0.2), (TREATED, 0.8)):
        run_sql(
            own_shop.url,
            "UPDATE exposures SET rules_name = 'other', probability = ? WHERE variant = ? AND expose_time > ?",
            probability,
            variant,
            middle,
        )
    analysis = analysis_of(own_shop)

    assert [finding.trouble for finding in analysis.refused] == [Trouble.ALLOCATION_CHANGED]
    assert analysis.verdict(analysis.treatments[0]) is Verdict.UNDECIDED
    assert "weights of variants were changed" in page_of(analysis, own_shop)
    assert ">held<" not in page_of(analysis, own_shop)


def test_another_rules_file_with_the_same_weights_refuses_nothing(own_shop: Shop) -> None:
    """A new version of the rules that draws as before is no trouble."""
    run_sql(own_shop.url, "UPDATE exposures SET rules_name = 'other' WHERE customer_key < '8'")

    assert not analysis_of(own_shop).refused


def test_a_variant_that_nobody_is_in_refuses_the_verdict(own_shop: Shop) -> None:
    """Without a customer of the treated variant there is no figure of it, and no verdict."""
    run_sql(own_shop.url, "DELETE FROM exposures WHERE variant = ?", TREATED)
    analysis = analysis_of(own_shop)

    assert Trouble.NO_EXPOSURES in [finding.trouble for finding in analysis.refused]
    assert f"{TREATED}.net_value.difference" not in metrics_of(analysis)
    assert "No verdict" in page_of(analysis, own_shop)


def test_thin_data_are_refused_with_a_reason(own_shop: Shop) -> None:
    """Of forty customers nothing is concluded, and no figure of a difference is logged."""
    run_sql(
        own_shop.url,
        "DELETE FROM exposures WHERE customer_key NOT IN (SELECT customer_key FROM exposures ORDER BY expose_time LIMIT 40)",
    )
    analysis = analysis_of(own_shop)
    metrics = metrics_of(analysis)

    assert analysis.verdict(analysis.treatments[0]) is Verdict.UNDECIDED
    assert not [name for name in metrics if ".difference" in name]
    assert "too few customers" in page_of(analysis, own_shop)


def test_what_operators_changed_is_told(own_shop: Shop) -> None:
    """Pauses, another exposure and the stop are on the page, with their reasons, escaped."""
    for number, (state, exposure) in enumerate((("paused", None), ("running", 0.5), ("stopped", 0.5)), start=1):
        run_sql(
            own_shop.url,
            "INSERT INTO experiment_changes VALUES ('order', ?, 1793000000000000, ?, ?, ?)",
            number,
            state,
            exposure,
            f"because <{state}>",
        )
    analysis = analysis_of(own_shop)
    page = page_of(analysis, own_shop)

    assert {Trouble.WAS_PAUSED, Trouble.EXPOSURE_CHANGED, Trouble.STOPPED} <= {f.trouble for f in analysis.findings}
    assert "because &lt;paused&gt;" in page
    assert "<paused>" not in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_needs_nothing_else(shop: Shop, language: Language) -> None:
    """No script, no address and no file is named in a page; its tags are closed and its charts are drawings that parse."""
    page = page_of(analysis_of(shop), shop, language)
    checker = Checker()
    checker.feed(page)

    assert not checker.stack
    assert "script" not in checker.tags
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(drawings) >= 5
    for drawing in drawings:
        ET.fromstring(drawing)
        assert "nan" not in drawing


def test_both_languages_tell_the_same(shop: Shop) -> None:
    """The Russian page has the English one's sections and figures, and is in Russian."""
    analysis = analysis_of(shop)
    pages = {language: page_of(analysis, shop, language) for language in LANGUAGES}
    headings = {}
    for language, page in pages.items():
        checker = Checker()
        checker.feed(page)
        headings[language] = checker.headings
        assert f'<html lang="{language}">' in page

    assert len(headings["en"]) == len(headings["ru"]) >= 12
    assert all(re.search("[а-я]", heading) for heading in headings["ru"])
    assert pages["en"].count("<tr") == pages["ru"].count("<tr")


def test_a_name_cannot_break_the_page(shop: Shop) -> None:
    """What comes from outside, such as a segment's label, is escaped."""
    analysis = analysis_of(shop)
    labels = tuple("<script>alert(1)</script>" if i % 2 else "b" for i in range(len(analysis.people.variant)))
    people = replace(analysis.people, segments={"zone": labels})
    page = page_of(analyse(people), shop)

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_run_holds_every_figure(
    own_shop: Shop, mlflow_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command makes a run in MLflow with the verdict, each figure as a metric, tables and both pages, and prints the decision."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES_TOML + EXPERIMENT)
    command = ["report", "--experiment", "order", "--database", own_shop.url, "--rules", str(rules)]
    code = main([*command, "--mlflow", mlflow_uri, "--out", str(tmp_path / "out")])

    said = capsys.readouterr().out
    assert code == 0
    assert "Ship push-first" in said
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("ab-reports")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    analysis = analysis_of(own_shop)
    assert run.data.metrics == pytest.approx(metrics_of(analysis))
    assert run.data.tags["verdict"] == f"{TREATED}: ship"
    assert run.data.params["success"] == "net_value, spend"
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert names == {"report.html", "report.ru.html", "tables"}
    written = (tmp_path / "out" / "report.html").read_text()
    assert "Ship push-first" in written
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "tables" / "figures.csv").read_text())))
    assert {row["metric"] for row in rows} == set(KPIS)
    assert float(next(row[TREATED] for row in rows if row["metric"] == "orders")) == pytest.approx(
        own_shop.mean(TREATED, "orders")
    )


def test_a_name_that_the_rules_do_not_have_is_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 2, and names the experiments that there are."""
    assert main(["report", "--experiment", "none", "--database", shop.url, "--no-mlflow"]) == 2
    assert "have holdout" in capsys.readouterr().err


def test_every_metric_of_the_rules_has_a_definition() -> None:
    """What the rules file may name is what is worked out, no more and no less."""
    assert set(KPIS) == set(get_args(Metric))


def test_every_kpi_is_a_number_or_is_not_told(shop: Shop) -> None:
    """No figure is infinite; where nothing is to be divided, there is none."""
    analysis = analysis_of(shop)
    for figures in analysis.figures.values():
        assert not any(math.isinf(figure.mean) for figure in figures.values())
        assert math.isnan(figures["csat"].mean)
    report = make_report(analysis, shop.rules, "log", [])
    assert all(math.isfinite(value) for value in report.metrics.values())


def test_the_same_log_gives_the_same_page(shop: Shop) -> None:
    """A report made twice is the same, letter by letter."""
    assert page_of(analysis_of(shop), shop) == page_of(analysis_of(shop), shop)
