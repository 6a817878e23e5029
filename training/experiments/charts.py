"""Charts as inline SVG: no script, no network, readable on screen and on paper, their texts in the page's own font.

Every chart has a title for readers of the screen, axes with units, and colours that differ in lightness too. Coordinates are pixels of a view box
that scales with the page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#5b6b7b", "#0f7b6c", "#c4572b", "#6a4fb3", "#b8860b", "#2f6fb2", "#8c2f5f", "#3f7d20")
"""Of variants and channels, the control first."""
_WIDTH = 680
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 14, 40
_LEAST_WIDTH = 1e-300
"""An axis with less between its ends has one place."""
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A line with an interval around it; nan leaves a gap."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line with a name."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One row of a forest: a point with its interval, and what is written beside it."""

    label: str
    value: float
    low: float
    high: float
    text: str
    is_shown: bool = False
    """Whether the interval is one that something is concluded from."""


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        width = self.high - self.low
        share = (value - self.low) / width if width > _LEAST_WIDTH else 0.5
        return self.begin + share * (self.end - self.begin)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers that divide an interval: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not _LEAST_WIDTH < span < math.inf:
        return [low]
    raw = span / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def band_chart(band: Band, *, title: str, x_label: str, y_label: str, x_text: Format, y_text: Format) -> str:
    """Return a line with its band, and where 0 is."""
    points = [p for p in zip(band.x, band.y, band.low, band.high, strict=True) if all(map(math.isfinite, p))]
    if not points:
        return ""
    # The first looks are so wide that the later ones would be a line: what is beyond is cut off.
    last = points[-1]
    reach = 4 * max(last[3] - last[2], 1e-12)
    low = max(min(min(p[2] for p in points), 0.0), last[2] - reach)
    high = min(max(max(p[3] for p in points), 0.0), last[3] + reach)
    height = 260
    x = _Scale(points[0][0], max(points[-1][0], points[0][0] + 1), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(low, high, height - _BOTTOM, _TOP)

    def cut(value: float) -> float:
        return min(max(value, low), high)

    upper = " ".join(f"{x(p[0]):.1f},{y(cut(p[3])):.1f}" for p in points)
    lower = " ".join(f"{x(p[0]):.1f},{y(cut(p[2])):.1f}" for p in reversed(points))
    middle = " ".join(f"{x(p[0]):.1f},{y(cut(p[1])):.1f}" for p in points)
    body = [
        *_grid(x, y, ticks(points[0][0], points[-1][0]), ticks(low, high), x_text, y_text, height),
        f'<polygon points="{upper} {lower}" fill="{COLOURS[1]}" fill-opacity="0.18"/>',
        _zero(y, x),
        f'<polyline points="{middle}" fill="none" stroke="{COLOURS[1]}" stroke-width="2.2"/>',
        f'<circle cx="{x(last[0]):.1f}" cy="{y(cut(last[1])):.1f}" r="3.5" fill="{COLOURS[1]}"/>',
        *_labels(x_label, y_label, height),
    ]
    return _svg(title, height, body)


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_text: Format,
    y_text: Format,
) -> str:
    """Return lines over one axis, with a legend above."""
    values = [v for line in lines for v in line.y if math.isfinite(v)]
    places = [v for line in lines for v in line.x]
    if not values or max(places) <= min(places):
        return ""
    height = 240
    low = min(0.0, *values)
    high = max(values) if max(values) > low else low + 1
    x = _Scale(min(places), max(places), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(low, high, height - _BOTTOM, _TOP + 18)
    body = _grid(x, y, ticks(min(places), max(places)), ticks(low, high, 5), x_text, y_text, height)
    for number, line in enumerate(lines):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b))
        dash = ' stroke-dasharray="6 4"' if number == 0 else ""
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="2.2"{dash}/>'
        )
    body += _legend([line.name for line in lines])
    body += _labels(x_label, y_label, height)
    return _svg(title, height, body)


def span_chart(spans: Sequence[Span], *, title: str, x_label: str, x_text: Format) -> str:
    """Return a forest: one row each with a point, its interval, and a line at 0."""
    finite = [s for s in spans if all(map(math.isfinite, (s.value, s.low, s.high)))]
    if not finite:
        return ""
    widths = sorted(s.high - s.low for s in finite)
    reach = 3 * widths[len(widths) // 2]
    low = min(0.0, *(max(s.low, s.value - reach) for s in finite))
    high = max(0.0, *(min(s.high, s.value + reach) for s in finite))
    left, right, row = 215, 130, 24
    height = _TOP + row * len(spans) + _BOTTOM
    x = _Scale(low, high if high > low else low + 1, left, _WIDTH - right)
    body = []
    for mark in ticks(low, high, 5):
        body.append(f'<line x1="{x(mark):.1f}" y1="{_TOP}" x2="{x(mark):.1f}" y2="{height - _BOTTOM}" class="grid"/>')
        body.append(
            f'<text x="{x(mark):.1f}" y="{height - _BOTTOM + 15}" text-anchor="middle">{escape(x_text(mark))}</text>'
        )
    body.append(f'<line x1="{x(0):.1f}" y1="{_TOP}" x2="{x(0):.1f}" y2="{height - _BOTTOM}" class="zero"/>')
    for number, span in enumerate(spans):
        middle = _TOP + row * number + row / 2
        body.append(
            f'<text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(span.label, 25))}</text>'
        )
        body.append(f'<text x="{_WIDTH - right + 10}" y="{middle + 4:.1f}">{escape(span.text)}</text>')
        if not all(map(math.isfinite, (span.value, span.low, span.high))):
            continue
        colour = COLOURS[1] if span.is_shown else COLOURS[0]
        begin, end = (min(max(v, low), high) for v in (span.low, span.high))
        body.append(
            f'<line x1="{x(begin):.1f}" y1="{middle:.1f}" x2="{x(end):.1f}" y2="{middle:.1f}" stroke="{colour}" stroke-width="2.4"/>'
        )
        body.append(f'<circle cx="{x(min(max(span.value, low), high)):.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>')
    body.append(
        f'<text x="{(left + _WIDTH - right) / 2}" y="{height - 6}" text-anchor="middle" class="label">{escape(x_label)}</text>'
    )
    return _svg(title, height, body)


def share_bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, title: str, text: Format) -> str:
    """Return stacked bars: for each row its parts by name, all on one scale of what is counted."""
    names = list(dict.fromkeys(name for _, parts in rows for name, _ in parts))
    longest = max((sum(value for _, value in parts) for _, parts in rows), default=0.0)
    if longest <= 0:
        return ""
    left, row, top = 120, 34, 34 + 18 * ((len(names) - 1) // 5)
    height = top + row * len(rows) + 8
    x = _Scale(0, longest, left, _WIDTH - 70)
    body = _legend(names)
    for number, (label, parts) in enumerate(rows):
        begin, y = 0.0, top + row * number
        body.append(f'<text x="{left - 10}" y="{y + 18}" text-anchor="end">{escape(_short(label, 16))}</text>')
        for name, value in parts:
            if value <= 0:
                continue
            colour = COLOURS[names.index(name) % len(COLOURS)]
            width = x(begin + value) - x(begin)
            body.append(
                f'<rect x="{x(begin):.1f}" y="{y + 3}" width="{max(width - 1, 0.5):.1f}" height="22" fill="{colour}">'
                f"<title>{escape(label)}, {escape(name)}: {escape(text(value))}</title></rect>"
            )
            begin += value
        body.append(f'<text x="{x(begin) + 6:.1f}" y="{y + 18}">{escape(text(begin))}</text>')
    return _svg(title, height, body)


def _grid(
    x: _Scale,
    y: _Scale,
    x_marks: Sequence[float],
    y_marks: Sequence[float],
    x_text: Format,
    y_text: Format,
    height: int,
) -> list[str]:
    found = []
    for mark in y_marks:
        found.append(f'<line x1="{_LEFT}" y1="{y(mark):.1f}" x2="{_WIDTH - _RIGHT}" y2="{y(mark):.1f}" class="grid"/>')
        found.append(f'<text x="{_LEFT - 8}" y="{y(mark) + 4:.1f}" text-anchor="end">{escape(y_text(mark))}</text>')
    for mark in x_marks:
        found.append(
            f'<text x="{x(mark):.1f}" y="{height - _BOTTOM + 17}" text-anchor="middle">{escape(x_text(mark))}</text>'
        )
    return found


def _zero(y: _Scale, x: _Scale) -> str:
    return f'<line x1="{x.begin:.1f}" y1="{y(0):.1f}" x2="{x.end:.1f}" y2="{y(0):.1f}" class="zero"/>'


def _labels(x_label: str, y_label: str, height: int) -> list[str]:
    middle = (height - _BOTTOM + _TOP) / 2
    return [
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{height - 4}" text-anchor="middle" class="label">{escape(x_label)}</text>',
        f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})" class="label">{escape(y_label)}</text>',
    ]


def _legend(names: Sequence[str]) -> list[str]:
    found = []
    for number, name in enumerate(names):
        x, y = 8 + 132 * (number % 5), 6 + 18 * (number // 5)
        found.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        found.append(f'<text x="{x + 17}" y="{y + 10}">{escape(_short(name, 16))}</text>')
    return found


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )
