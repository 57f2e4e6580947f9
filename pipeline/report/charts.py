"""The page's charts as SVG that takes the page's colours: texts and axes in `currentColor`, marks in the CSS variable `--accent`.

Altair makes them and vl-convert draws them, both within this process. Each is small enough to be read on a phone.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

WIDTH, MAP = 270, 300  # pixels of the area within the axes
INK, MARK, WARN = "currentColor", "var(--accent)", "var(--warn)"


def histogram(counts: np.ndarray, least: float, most: float, title: str) -> Markup:
    """Bars of shares, in percent, of images by something that goes from `least` to `most` in equal steps."""
    edges = np.linspace(least, most, len(counts) + 1)
    shares = 100 * counts / max(counts.sum(), 1)
    bins = [{"from": a, "to": b, "share": share} for a, b, share in zip(edges[:-1], edges[1:], shares.tolist(), strict=True)]
    x = alt.X(
        "from:Q", title=title, scale=alt.Scale(domain=[least, most], nice=False), axis=alt.Axis(format="%", values=_quarters(least, most))
    )
    y = alt.Y("share:Q", title="% of images", axis=alt.Axis(tickCount=4))
    chart = alt.Chart(alt.Data(values=bins)).mark_rect(fill=MARK, stroke=None).encode(x=x, x2="to", y=y, y2=alt.Y2Datum(0))
    return _svg(chart.properties(width=WIDTH, height=90))


def density(counts: np.ndarray, names: Sequence[str], ranges: Sequence[Sequence[float]]) -> Markup:
    """A map of how many images there are by two values, int [steps, steps]: the more, the denser the colour, by square root."""
    edges = [np.linspace(about[0], about[-1], len(counts) + 1).tolist() for about in ranges]
    shares = 100 * counts / max(counts.sum(), 1)
    cells = [
        {"x": edges[0][i], "x2": edges[0][i + 1], "y": edges[1][j], "y2": edges[1][j + 1], "share": float(shares[i, j])}
        for i, j in np.argwhere(counts)
    ]
    x, y = (
        axis(f"{field}:Q", title=name, scale=alt.Scale(domain=list(about), nice=False), axis=alt.Axis(tickCount=8))
        for axis, field, name, about in zip((alt.X, alt.Y), "xy", names, ranges, strict=True)
    )
    opacity = alt.FillOpacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, float(shares.max())], range=[0.06, 1]), legend=None)
    chart = alt.Chart(alt.Data(values=cells)).mark_rect(fill=MARK, stroke=None)
    return _svg(chart.encode(x=x, x2="x2", y=y, y2="y2", fillOpacity=opacity).properties(width=MAP, height=MAP))


def by_night(distances: Mapping[str, float], least: float) -> Markup:
    """How far each night was from those before it, 0 to 1 by date; beyond `least` it may be drift."""
    nights = [{"date": date, "far": far, "over": far >= least} for date, far in distances.items()]
    top = max(2 * least, *distances.values()) * 1.05
    days = [dt.date.fromisoformat(date) for date in distances]
    some = dict.fromkeys(days[round(i)] for i in np.linspace(0, len(days) - 1, 3))
    ticks = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in some]
    x = alt.X("date:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%-d %b", values=ticks))
    y = alt.Y("far:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(format=".0%", tickCount=3))
    base = alt.Chart(alt.Data(values=nights)).encode(x=x, y=y)
    over = alt.condition("datum.over", alt.value(WARN), alt.value(MARK))
    limit = alt.Chart(alt.Data(values=[{"far": least}])).mark_rule(stroke=WARN, strokeDash=[4, 3]).encode(y="far:Q")
    chart = limit + base.mark_line(stroke=MARK, strokeWidth=1.5) + base.mark_point(filled=True, size=30, opacity=1).encode(fill=over)
    return _svg(chart.properties(width=WIDTH, height=70))


def _quarters(least: float, most: float) -> list[float]:
    return np.linspace(least, most, 5).tolist()


def _svg(chart: alt.Chart | alt.LayerChart) -> Markup:
    """In the page's colours, without what only a file of its own needs. That it is a picture says the page, in one place."""
    axis: dict[str, Any] = {f"{part}Color": INK for part in ("label", "title", "tick", "domain", "grid")}
    axis |= {
        "gridOpacity": 0.12,
        "tickOpacity": 0.4,
        "domainOpacity": 0.4,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    configured = chart.configure(background="transparent", font="system-ui, sans-serif", aria=False, padding=2)
    configured = configured.configure_view(stroke=None).configure_axis(**axis)
    text = StringIO()
    configured.save(text, format="svg")
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return Markup(re.sub(r' xmlns:xlink="[^"]*"| role="[^"]*"| aria-[a-z]+="[^"]*"', "", svg))
