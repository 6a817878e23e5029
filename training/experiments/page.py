"""The report as one HTML page that needs nothing else: styles and charts are inside, there is no script and no address in it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from models.rules import Rules
from training.experiments.analysis import Analysis, Finding, SegmentRow, Treatment, Trouble
from training.experiments.charts import Band, Line, Span, band_chart, line_chart, share_bars, span_chart
from training.experiments.goals import Standing, Track
from training.experiments.kpis import KPIS, Unit
from training.experiments.statistics import Comparison, Reason, ReasonCode, Verdict
from training.experiments.words import NOTHING, Language, kpi_formula, kpi_name, number, p_text, percent, say

_STYLE = """
:root{color-scheme:light;--ink:#1d2731;--soft:#5b6b7b;--line:#dde3e8;--paper:#fff;--good:#0f7b6c;--bad:#b3372a;--wait:#8a6d1a}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1000px;margin:0 auto;padding:20px 18px 60px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.12rem;margin:34px 0 8px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:18px 0 6px;color:var(--soft)}
p{margin:6px 0}.soft{color:var(--soft);font-size:.88rem}
.verdict{border-left:6px solid var(--soft);background:#f4f6f8;padding:12px 16px;margin:14px 0;font-size:1.1rem;font-weight:600;border-radius:0 6px 6px 0}
.verdict.ship{border-color:var(--good);background:#e9f5f2}.verdict.harmful{border-color:var(--bad);background:#fbeeec}
.verdict.undecided,.verdict.no_effect_shown{border-color:var(--wait);background:#fbf6e6}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:10px;margin:8px 0}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card .name{font-size:.85rem;color:var(--soft)}.card .big{font-size:1.45rem;font-weight:650;white-space:nowrap;line-height:1.3}
.card .sub{font-size:.84rem;color:var(--soft)}
.tag{display:inline-block;font-size:.78rem;font-weight:600;border-radius:10px;padding:1px 9px;color:#fff;background:var(--wait)}
.tag.good{background:var(--good)}.tag.bad{background:var(--bad)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{padding:5px 9px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
th{color:var(--soft);font-weight:600;white-space:normal}td small{display:block;color:var(--soft);font-size:.92em}th:first-child,td:first-child{text-align:left;white-space:normal;min-width:130px}
td.wide{white-space:normal;text-align:left;overflow-wrap:anywhere}tr.decides td:first-child{font-weight:650}
tr.decides td:first-child::before{content:"\\25CF\\00A0";color:var(--good)}
svg{width:100%;max-width:820px;height:auto;display:block;font-size:12px}svg text{fill:var(--ink)}svg .label{fill:var(--soft)}
svg .grid{stroke:#e6ebef;stroke-width:1}svg .zero{stroke:#8795a3;stroke-width:1.2}
ul{margin:6px 0;padding-left:20px}li{margin:3px 0}
@media (max-width:620px){main{padding:12px 10px 40px}.verdict{font-size:1rem}th,td{padding:5px 4px}th:first-child,td:first-child{min-width:96px}.cards{grid-template-columns:1fr 1fr}.card .big{font-size:1.15rem;white-space:normal}svg{font-size:15px}}
@media print{main{max-width:none}h2,.card,svg,tr{break-inside:avoid}h2{break-after:avoid}.scroll{overflow:visible}th,td{padding:3px 5px;white-space:normal}}
"""
_DECISIVE = (ReasonCode.SUCCESS_IMPROVED, ReasonCode.SUCCESS_WORSE, ReasonCode.GUARDRAIL_BROKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One language's page of one analysis."""

    analysis: Analysis
    rules: Rules
    language: Language
    log: str
    """What the log is called: without a password."""
    tracks: Sequence[Track] = ()

    def html(self) -> str:
        """Return the page."""
        title = self._say("title", name=self.analysis.experiment.name)
        body = "".join(self._parts())
        return (
            f'<!doctype html><html lang="{self.language}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
        )

    def decision(self, treatment: Treatment) -> str:
        """Return the decision on one variant in a sentence."""
        verdict = self.analysis.verdict(treatment)
        refused = [self._finding(finding) for finding in self.analysis.refused]
        grounds = refused or [self._reason(reason, treatment) for reason in self._grounds(treatment)]
        return self._say(verdict.value, treated=treatment.name, why="; ".join(grounds))

    # --- words ------------------------------------------------------------------------------------------------------------

    def _say(self, key: str, **values: object) -> str:
        return say(self.language, key, **values)

    def _name(self, metric: str) -> str:
        return kpi_name(self.language, metric)

    def _percent(self, share: float, *, signed: bool = False) -> str:
        return percent(self.language, share, signed=signed)

    def _number(self, value: float, decimals: int = 0, *, signed: bool = False) -> str:
        return number(self.language, value, decimals, signed=signed)

    @property
    def _share(self) -> str:
        return self._percent(1 - self.analysis.alpha)

    def _amount(self, unit: Unit, value: float, *, signed: bool = False) -> str:
        """Return a figure with its unit."""
        if not math.isfinite(value):
            return NOTHING
        if unit == "share":
            return self._percent(value, signed=signed)
        if unit == "money":
            return f"{self._number(value, _decimals(value), signed=signed)}\u00a0{self.rules.currency}"
        return self._number(value, 0 if abs(value) >= 1000 else 3 if abs(value) < 10 else 1, signed=signed)

    def _change(self, unit: Unit, value: float) -> str:
        """Return a difference with its sign; of shares in percentage points."""
        if unit == "share" and math.isfinite(value):
            return self._say("points", value=self._number(100 * value, 1 if abs(value) >= 0.01 else 2, signed=True))
        return self._amount(unit, value, signed=True)

    def _grounds(self, treatment: Treatment) -> list[Reason]:
        """Return what the sentence tells: what decided, or what keeps from deciding."""
        reasons = treatment.ruling.reasons
        decisive = [reason for reason in reasons if reason.code in _DECISIVE]
        missing = [
            reason
            for reason in reasons
            if reason.code
            in (
                ReasonCode.SAMPLE_RATIO_MISMATCH,
                ReasonCode.SUCCESS_REFUSED,
                ReasonCode.GUARDRAIL_NOT_SHOWN,
                ReasonCode.GUARDRAIL_REFUSED,
            )
        ]
        match treatment.ruling.verdict:
            case Verdict.SHIP:
                held = [reason for reason in reasons if reason.code is ReasonCode.GUARDRAIL_HELD]
                return decisive + held
            case Verdict.HARMFUL:
                return decisive
            case Verdict.NO_EFFECT_SHOWN:
                return [reason for reason in reasons if reason.code is ReasonCode.SUCCESS_NOT_SHOWN] or list(reasons)
            case _:
                return [*decisive, *missing] or list(reasons)

    def _reason(self, reason: Reason, treatment: Treatment) -> str:
        if not reason.metric:
            return self._say(reason.code.value, figure=p_text(self.language, reason.figure))
        kpi = KPIS[reason.metric]
        comparison = treatment.comparisons[reason.metric]
        values: dict[str, str] = {"metric": self._name(reason.metric)}
        key = reason.code.value
        if comparison.problem:
            values["problem"] = self._say(comparison.problem)
        if reason.code in (ReasonCode.SUCCESS_IMPROVED, ReasonCode.SUCCESS_WORSE):
            values["figure"] = self._change(kpi.unit, abs(reason.figure)).lstrip("+")
            values["direction"] = self._say("up" if comparison.difference > 0 else "down")
            if kpi.bottom is not None or kpi.unit == "share":
                key += "_ratio"
        elif reason.code is ReasonCode.GUARDRAIL_HELD and reason.figure < 0:
            key, values["figure"] = "guardrail_held_better", self._percent(-reason.figure)
        elif reason.metric in {guardrail.metric for guardrail in self.analysis.experiment.guardrails}:
            if reason.code is ReasonCode.GUARDRAIL_NOT_SHOWN and not math.isfinite(reason.figure):
                key += "_nan"
            values["figure"] = self._percent(max(reason.figure, 0.0))
            values["margin"] = self._percent(self._margin(reason.metric))
        return self._say(key, **values)

    def _margin(self, metric: str) -> float:
        return next(g.margin for g in self.analysis.experiment.guardrails if g.metric == metric)

    def _finding(self, finding: Finding) -> str:
        figure = finding.figure
        if finding.trouble in (Trouble.MIXED_CUSTOMERS, Trouble.EXPOSURE_CHANGED):
            shown = self._percent(figure)
        else:
            shown = self._number(figure)
        return self._say(finding.trouble.value, about=finding.about, figure=shown)

    # --- parts ------------------------------------------------------------------------------------------------------------

    def _parts(self) -> Iterable[str]:
        yield from self._head()
        for treatment in self.analysis.treatments:
            yield from self._first_screen(treatment)
        yield self._notes()
        for treatment in self.analysis.treatments:
            yield self._cumulative(treatment)
        yield self._figures()
        for treatment in self.analysis.treatments:
            yield self._segments(treatment)
        yield self._mix()
        yield self._funnel()
        yield self._time()
        for treatment in self.analysis.treatments:
            yield self._novelty(treatment)
        yield self._daily()
        yield self._roles()
        yield self._goals()
        yield self._changes()
        yield self._versions()

    def _head(self) -> Iterable[str]:
        people, experiment = self.analysis.people, self.analysis.experiment
        variants = ", ".join(f"{variant.name} {self._percent(variant.weight)}" for variant in experiment.variants)
        yield f"<h1>{escape(self._say('title', name=experiment.name))}</h1>"
        dates = {"begin": f"{experiment.start_time:%Y-%m-%d}", "end": f"{experiment.end_time:%Y-%m-%d}"}
        subtitle = self._say("subtitle", variants=variants, until=f"{people.until:%Y-%m-%d %H:%M}", **dates)
        counted = self._say(
            "counted",
            counted=self._number(sum(self.analysis.counted.values())),
            exposed=self._number(sum(people.exposed.values())),
            days=self._number(experiment.window_days, 0 if experiment.window_days % 1 == 0 else 1),
        )
        yield f'<p class="soft">{escape(subtitle)}<br>{escape(counted)}</p>'

    def _first_screen(self, treatment: Treatment) -> Iterable[str]:
        verdict = self.analysis.verdict(treatment)
        yield f'<div class="verdict {verdict.value}">{escape(self.decision(treatment))}</div>'
        experiment = self.analysis.experiment
        yield f"<h3>{escape(self._say('success'))}</h3>"
        yield _cards(self._success_card(treatment, metric) for metric in experiment.success)
        if experiment.guardrails:
            yield f"<h3>{escape(self._say('guardrails'))}</h3>"
            yield _cards(self._guardrail_card(treatment, g.metric) for g in experiment.guardrails)
        yield f"<h3>{escape(self._say('money', control=experiment.control.name))}</h3>"
        yield _cards(self._money_cards(treatment))
        yield f"<p>{self._ratio_tag()}</p>"

    def _ratio_tag(self) -> str:
        ratio = self.analysis.ratio
        key, kind = ("ratio_good", "good")
        if ratio.is_warning:
            key, kind = "ratio_odd", ""
        if ratio.is_mismatch:
            key, kind = "ratio_bad", "bad"
        counts = ", ".join(f"{name} {self._number(n)}" for name, n in self.analysis.people.exposed.items())
        text = self._say(key, p=p_text(self.language, ratio.p_value))
        return f'<span class="tag {kind}">{escape(text)}</span> <span class="soft">{escape(counts)}</span>'

    def _card(self, name: str, big: str, lines: Iterable[str], tag: str = "", kind: str = "") -> str:
        marked = f' <span class="tag {kind}">{escape(tag)}</span>' if tag else ""
        below = "".join(f'<div class="sub">{escape(line)}</div>' for line in lines if line)
        return f'<div class="card"><div class="name">{escape(name)}{marked}</div><div class="big">{escape(big)}</div>{below}</div>'

    def _metric_lines(self, treatment: Treatment, metric: str) -> tuple[str, list[str]]:
        """Return a metric's headline and what stands below it."""
        comparison, kpi = treatment.comparisons[metric], KPIS[metric]
        figures = self.analysis.figures
        control, treated = self.analysis.experiment.control.name, treatment.name
        means = self._say(
            "means",
            treated=self._amount(kpi.unit, figures[treated][metric].mean),
            control=self._amount(kpi.unit, figures[control][metric].mean),
        )
        if comparison.problem:
            return NOTHING, [self._say(comparison.problem), means]
        difference = self._say(
            "lift",
            lift=self._change(kpi.unit, comparison.difference),
            low=self._change(kpi.unit, comparison.always_low),
            high=self._change(kpi.unit, comparison.always_high),
        )
        if not math.isfinite(comparison.lift) or not math.isfinite(comparison.always_lift_low):
            return self._change(kpi.unit, comparison.difference), [
                self._between(kpi.unit, comparison),
                means,
            ]
        lift = self._say(
            "from_to",
            low=self._percent(comparison.always_lift_low, signed=True),
            high=self._percent(comparison.always_lift_high, signed=True),
        )
        return self._percent(comparison.lift, signed=True), [lift, difference, means]

    def _between(self, unit: Unit, comparison: Comparison) -> str:
        return self._say(
            "from_to",
            low=self._change(unit, comparison.always_low),
            high=self._change(unit, comparison.always_high),
        )

    def _success_card(self, treatment: Treatment, metric: str) -> str:
        big, lines = self._metric_lines(treatment, metric)
        code = self._code(treatment, metric)
        tag, kind = "unclear", ""
        if code is ReasonCode.SUCCESS_IMPROVED:
            tag, kind = "better", "good"
        elif code is ReasonCode.SUCCESS_WORSE:
            tag, kind = "worse", "bad"
        return self._card(self._name(metric), big, lines, self._say(tag), kind)

    def _guardrail_card(self, treatment: Treatment, metric: str) -> str:
        big, lines = self._metric_lines(treatment, metric)
        code = self._code(treatment, metric)
        tag, kind = "open", ""
        if code is ReasonCode.GUARDRAIL_HELD:
            tag, kind = "held", "good"
        elif code is ReasonCode.GUARDRAIL_BROKEN:
            tag, kind = "broken", "bad"
        lines = [*lines, self._say("margin_allowed", margin=self._percent(self._margin(metric)))]
        return self._card(self._name(metric), big, lines, self._say(tag), kind)

    def _code(self, treatment: Treatment, metric: str) -> ReasonCode | None:
        if self.analysis.refused:
            return None
        return next((reason.code for reason in treatment.ruling.reasons if reason.metric == metric), None)

    def _money_cards(self, treatment: Treatment) -> Iterable[str]:
        money = treatment.money
        exposed = self._number(self.analysis.people.exposed.get(treatment.name, 0))
        scope = self._say("for_exposed", count=exposed, treated=treatment.name)
        rows = (
            ("saved", "overspent", money.spend_saved, money.spend_saved_low, money.spend_saved_high),
            ("earned", "lost", money.net_earned, money.net_earned_low, money.net_earned_high),
        )
        for gain, loss, value, low, high in rows:
            is_loss = math.isfinite(value) and value < 0
            sign = -1 if is_loss else 1
            bounds = sorted((sign * low, sign * high)) if math.isfinite(low) else [low, high]
            interval = self._say("from_to", low=self._amount("money", bounds[0]), high=self._amount("money", bounds[1]))
            shown = self._amount("money", sign * value)
            is_shown = math.isfinite(low) and (low > 0 or high < 0)
            tag, kind = ("", "") if is_shown else (self._say("unclear"), "")
            yield self._card(self._say(loss if is_loss else gain), shown, [interval, scope], tag, kind)
        figures, control = self.analysis.figures, self.analysis.experiment.control.name
        for metric in ("cost_per_order", "paid_messages"):
            kpi = KPIS[metric]
            treated_mean = figures[treatment.name][metric].mean
            control_mean = self._amount(kpi.unit, figures[control][metric].mean)
            yield self._card(self._name(metric), self._amount(kpi.unit, treated_mean), [f"{control}: {control_mean}"])

    def _notes(self) -> str:
        found = [self._finding(finding) for finding in self.analysis.findings if finding.trouble is not Trouble.SMALL]
        for treatment in self.analysis.treatments:
            found += [
                self._reason(reason, treatment)
                for reason in treatment.ruling.reasons
                if reason.code is ReasonCode.SAMPLE_RATIO_WARNING
            ]
        plan = self.analysis.plan
        experiment = self.analysis.experiment
        size = self._say("size_unknown")
        if math.isfinite(plan.needed):
            size = self._say(
                "size",
                needed=self._number(plan.needed),
                effect=self._percent(experiment.minimum_detectable_effect),
                power=self._percent(experiment.power),
                counted=self._number(plan.counted),
                detectable=self._percent(plan.detectable),
            )
        if any(finding.trouble is Trouble.SMALL for finding in self.analysis.findings):
            size = f"{size}; {self._say('small')}"
        items = "".join(f"<li>{escape(_sentence(text))}</li>" for text in [*found, size])
        return f"<h2>{escape(self._say('notes'))}</h2><ul>{items}</ul>"

    def _cumulative(self, treatment: Treatment) -> str:
        metric = self.analysis.experiment.success[0]
        unit = KPIS[metric].unit
        days = [(day, c) for day, c in treatment.daily if not c.problem]
        chart = band_chart(
            Band(
                x=[day for day, _ in days],
                y=[c.difference for _, c in days],
                low=[c.always_low for _, c in days],
                high=[c.always_high for _, c in days],
            ),
            title=self._say("cumulative", metric=self._name(metric)),
            x_label=self._say("day_of_experiment"),
            y_label=self._say("per_customer", unit=self.rules.currency if unit == "money" else self._name(metric)),
            x_text=lambda v: self._number(v),
            y_text=self._tick(unit),
        )
        note = self._say("cumulative_note", share=self._share)
        return self._section(self._with_name("cumulative", treatment, metric=self._name(metric)), chart, note)

    def _tick(self, unit: Unit) -> Callable[[float], str]:
        def text(value: float) -> str:
            if unit == "share":
                return self._percent(value)
            return self._number(value, 0 if abs(value) >= 10 or value == int(value) else 2)

        return text

    def _with_name(self, key: str, treatment: Treatment, **values: object) -> str:
        text = self._say(key, **values)
        return f"{text}: {treatment.name}" if len(self.analysis.treatments) > 1 else text

    def _section(self, title: str, content: str, note: str = "") -> str:
        if not content:
            return ""
        below = f'<p class="soft">{escape(note)}</p>' if note else ""
        return f"<h2>{escape(title)}</h2>{content}{below}"

    def _figures(self) -> str:
        analysis = self.analysis
        names = [variant.name for variant in analysis.experiment.variants]
        decisive = {*analysis.experiment.success, *(g.metric for g in analysis.experiment.guardrails)}
        heads = [self._say("figure"), *names]
        many = len(analysis.treatments) > 1
        for treatment in analysis.treatments:
            suffix = f" ({treatment.name})" if many else ""
            heads += [self._say("lift_head", share=self._share) + suffix, self._say("p_head") + suffix]
        rows = []
        order = sorted(KPIS, key=lambda name: (name not in analysis.experiment.success, name not in decisive))
        for metric in order:
            figures = [analysis.figures[name][metric].mean for name in names]
            if not any(math.isfinite(value) and value for value in figures):
                continue
            cells = [_cell(self._name(metric))]
            cells += [_cell(self._amount(KPIS[metric].unit, value)) for value in figures]
            for treatment in analysis.treatments:
                cells += self._comparison_cells(treatment, metric, is_decisive=metric in decisive)
            rows.append(f'<tr class="{"decides" if metric in decisive else ""}">{"".join(cells)}</tr>')
        note = self._say("kpi_note", nothing=NOTHING)
        formulas = "".join(
            f"<li>{escape(self._name(metric))}: {escape(kpi_formula(self.language, metric))}</li>" for metric in KPIS
        )
        details = f"<details><summary>{escape(self._say('formula'))}</summary><ul>{formulas}</ul></details>"
        return self._section(self._say("by_variant"), _table(heads, rows), note) + details

    def _comparison_cells(self, treatment: Treatment, metric: str, *, is_decisive: bool) -> list[str]:
        comparison = treatment.comparisons[metric]
        if comparison.problem:
            return [_cell(self._say(comparison.problem)), _cell(NOTHING)]
        low, high = comparison.lift_low, comparison.lift_high
        p = treatment.adjusted_p.get(metric, comparison.p_value)
        if is_decisive:
            low, high, p = comparison.always_lift_low, comparison.always_lift_high, comparison.always_p_value
        if not all(map(math.isfinite, (comparison.lift, low, high))):
            return [_cell(NOTHING), _cell(p_text(self.language, p))]
        interval = self._say("from_to", low=self._percent(low, signed=True), high=self._percent(high, signed=True))
        lift = escape(self._percent(comparison.lift, signed=True))
        return [f"<td>{lift}<small>{escape(interval)}</small></td>", _cell(p_text(self.language, p))]

    def _segments(self, treatment: Treatment) -> str:
        if not treatment.segments:
            return ""
        metric = self.analysis.experiment.success[0]
        unit, alpha = KPIS[metric].unit, self.analysis.experiment.alpha
        chart = span_chart(
            [self._span(row, unit, alpha) for row in treatment.segments],
            title=self._say("segments", metric=self._name(metric)),
            x_label=self._say("segment_shown", alpha=self._number(alpha, 2)),
            x_text=self._tick(unit),
        )
        title = self._with_name("segments", treatment, metric=_first_up(self._name(metric)))
        return self._section(title, chart, self._say("segments_note"))

    def _span(self, row: SegmentRow, unit: Unit, alpha: float) -> Span:
        label = self._say(row.label) if row.segment == "customer_value" else row.label
        c = row.comparison
        text = self._say(c.problem) if c.problem else self._change(unit, c.difference)
        return Span(
            label=f"{self._say(row.segment)}: {label}",
            value=c.difference,
            low=c.low,
            high=c.high,
            text=text,
            is_shown=math.isfinite(row.adjusted_p) and row.adjusted_p < alpha,
        )

    def _mix(self) -> str:
        people = self.analysis.people
        rows = []
        for place, variant in enumerate(people.experiment.variants):
            mask = people.mask(place)
            count = int(mask.sum())
            if count:
                rows.append(
                    (variant.name, [(key, 1000 * float(m[mask].sum()) / count) for key, m in people.messages.items()])
                )
        chart = share_bars(rows, title=self._say("mix"), text=lambda v: self._number(v))
        return self._section(self._say("mix"), chart)

    def _funnel(self) -> str:
        names = [variant.name for variant in self.analysis.experiment.variants]
        funnels = [self.analysis.funnels[name] for name in names]
        if not any(funnel.planned for funnel in funnels):
            return ""

        def row(key: str, values: Sequence[int]) -> str:
            cells = [_cell(self._say(key))]
            for value, funnel in zip(values, funnels, strict=True):
                share = (
                    f" ({self._percent(value / funnel.planned)})" if funnel.planned and key != "funnel_planned" else ""
                )
                cells.append(_cell(self._number(value) + share))
            return f"<tr>{''.join(cells)}</tr>"

        others = [f.planned - f.ordered_before - f.clicked_before - f.paid_sent for f in funnels]
        rows = [
            row("funnel_planned", [f.planned for f in funnels]),
            row("funnel_ordered", [f.ordered_before for f in funnels]),
            row("funnel_clicked", [f.clicked_before for f in funnels]),
            row("funnel_other", others),
            row("funnel_paid", [f.paid_sent for f in funnels]),
            row("funnel_saved", [f.planned - f.paid_sent for f in funnels]),
        ]
        return self._section(self._say("funnel"), _table(["", *names], rows))

    def _time(self) -> str:
        people = self.analysis.people
        days = np.linspace(0, people.experiment.window_days, 57)
        lines = []
        for place, variant in enumerate(people.experiment.variants):
            first = people.first_order_days[people.mask(place)]
            if len(first):
                shares = [float((first <= day).mean()) for day in days]
                lines.append(Line(name=variant.name, x=[float(day) for day in days], y=shares))
        if not any(max(line.y) > 0 for line in lines):
            return ""
        chart = line_chart(
            lines,
            title=self._say("time"),
            x_label=self._say("days_since"),
            y_label=self._say("share_ordered"),
            x_text=lambda v: self._number(v),
            y_text=lambda v: self._percent(v),
        )
        return self._section(self._say("time"), chart)

    def _novelty(self, treatment: Treatment) -> str:
        days = treatment.novelty
        if len(days) < 2:
            return ""
        chart = band_chart(
            Band(
                x=[d.day for d in days],
                y=[d.difference for d in days],
                low=[d.low for d in days],
                high=[d.high for d in days],
            ),
            title=self._say("novelty"),
            x_label=self._say("days_since"),
            y_label=self._say("per_customer", unit=self.rules.currency),
            x_text=lambda v: self._number(v),
            y_text=self._tick("money"),
        )
        return self._section(self._with_name("novelty", treatment), chart, self._say("novelty_note"))

    def _daily(self) -> str:
        people = self.analysis.people
        lines = [
            Line(name=name, x=[float(day) for day in range(len(counts))], y=[float(count) for count in counts])
            for name, counts in people.daily.items()
        ]
        chart = line_chart(
            lines,
            title=self._say("daily"),
            x_label=self._say("day_of_experiment"),
            y_label=self._say("customers"),
            x_text=lambda v: self._number(v),
            y_text=lambda v: self._number(v),
        )
        return self._section(self._say("daily"), chart) + self._by_exposure_day()

    def _by_exposure_day(self) -> str:
        """Return the first success metric of each variant by the day on which its customers were first exposed."""
        people, metric = self.analysis.people, self.analysis.experiment.success[0]
        kpi = KPIS[metric]
        top, day = kpi.top(people.figures), np.floor(people.expose_day)
        bottom = np.ones_like(top) if kpi.bottom is None else kpi.bottom(people.figures)
        lines = []
        for place, variant in enumerate(people.experiment.variants):
            masks = [(float(d), (people.variant == place) & (day == d)) for d in np.unique(day)]
            points = [(d, float(top[m].sum() / bottom[m].sum())) for d, m in masks if bottom[m].sum() > 0]
            lines.append(Line(name=variant.name, x=[x for x, _ in points], y=[y for _, y in points]))
        if not any(line.x for line in lines):
            return ""
        title = self._say("by_exposure_day", metric=_first_up(self._name(metric)))
        chart = line_chart(
            lines,
            title=title,
            x_label=self._say("day_of_experiment"),
            y_label=self.rules.currency if kpi.unit == "money" else self._name(metric),
            x_text=lambda v: self._number(v),
            y_text=self._tick(kpi.unit),
        )
        return self._section(title, chart, self._say("by_exposure_day_note"))

    def _roles(self) -> str:
        parts = []
        for name, roles in self.analysis.roles.items():
            if not roles:
                continue
            heads = [name, *(self._say(key) for key in ("first", "assisting", "last", "credited_orders", "credit"))]
            rows = [
                "<tr>"
                + _cell(role.channel)
                + "".join(_cell(self._number(value)) for value in (role.first, role.assisting, role.last))
                + _cell(self._number(role.credited_orders, 1))
                + _cell(self._amount("money", role.credit))
                + "</tr>"
                for role in roles
            ]
            parts.append(_table(heads, rows))
        return self._section(self._say("roles"), "".join(parts), self._say("roles_note"))

    def _goals(self) -> str:
        if not self.tracks:
            return ""
        heads = [self._say(key) for key in ("goal", "goal_from", "goal_due", "goal_now", "goal_target")] + [""]
        rows = []
        for track in self.tracks:
            unit = KPIS[track.goal.metric].unit
            last = track.checkpoints[-1] if track.checkpoints else None
            due, now = (math.nan, math.nan) if last is None else (last.due, last.value)
            kind = {Standing.REACHED: "good", Standing.ON_TRACK: "good", Standing.BEHIND: "bad"}.get(track.standing, "")
            change = self._percent(track.goal.change, signed=True)
            label = f"{track.goal.name}: {self._name(track.goal.metric)} {change}, {track.goal.start_date} – {track.goal.end_date}"
            rows.append(
                f"<tr>{_cell(label)}"
                + "".join(_cell(self._amount(unit, v)) for v in (track.baseline, due, now, track.target))
                + f'<td><span class="tag {kind}">{escape(self._say(track.standing.value))}</span></td></tr>'
            )
        return self._section(self._say("goals"), _table(heads, rows), self._say("goals_note"))

    def _changes(self) -> str:
        rows = []
        for change in self.analysis.changes:
            moment = np.datetime64(change.change_time, "us").astype("datetime64[m]")
            share = "" if change.exposure is None else self._percent(change.exposure)
            rows.append(
                f"<tr>{_cell(str(moment).replace('T', ' '))}{_cell(change.state)}{_cell(share)}"
                f'<td class="wide">{escape(change.reason)}</td></tr>'
            )
        return self._section(self._say("changes"), _table([], rows) if rows else "")

    def _versions(self) -> str:
        people = self.analysis.people
        rows = [(self._say("log"), self.log)]
        for allocation in people.allocations:
            count = self._say("customers_of", count=self._number(sum(allocation.counts.values())))
            rows.append(
                (self._say("rules"), f"{allocation.rules_name or NOTHING}: {count}, {allocation.begin:%Y-%m-%d}")
            )
        for key, table in (("bundles", people.bundles), ("policies", people.policies)):
            for variant, counts in table.items():
                parts = [
                    f"{name or self._say('no_bundle')}: {self._say('decisions', count=self._number(count))}"
                    for name, count in sorted(counts.items(), key=lambda item: -item[1])
                ]
                rows.append((self._say(key, variant=variant), "; ".join(parts)))
        cells = [f'<tr>{_cell(name)}<td class="wide">{escape(value)}</td></tr>' for name, value in rows]
        is_adjusted = any(t.comparisons[m].is_adjusted for t in self.analysis.treatments for m in t.comparisons)
        method = self._say(
            "method_text",
            days=self._number(people.experiment.window_days),
            mixed=self._number(people.mixed),
            open=self._number(people.open_windows),
            share=self._share,
            cuped=self._say("cuped_on" if is_adjusted else "cuped_off"),
            harm=self._amount("money", self.rules.harm.unsubscribe / 1e6),
        )
        return (
            self._section(self._say("versions"), _table([], cells))
            + f"<h2>{escape(self._say('method'))}</h2><p>{escape(method)}</p>"
        )


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 1000 else 2


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return _first_up(text).rstrip(".") + "."


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _cards(cards: Iterable[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in heads)}</tr></thead>" if heads else ""
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'
