"""The page's charts as SVG in the page's colours: text and axes in `currentColor`, marks in the CSS variable `--accent`.

Altair and vl-convert draw them in this process. Each is small enough for a phone.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

WIDTH, MAP_WIDTH = 270, 300  # pixels of the plot area
INK, MARK, WARN = "currentColor", "var(--accent)", "var(--warn)"


def histogram(counts: np.ndarray, low: float, high: float, title: str) -> Markup:
    """Draw a histogram of equal bins from `low` to `high`, in percent of the images. `title` is the x axis's."""
    edges = np.linspace(low, high, len(counts) + 1)
    shares = 100 * counts / max(counts.sum(), 1)
    bins = [{"from": a, "to": b, "share": share} for a, b, share in zip(edges[:-1], edges[1:], shares.tolist(), strict=True)]
    ticks = np.linspace(low, high, 5).tolist()
    x = alt.X("from:Q", title=title, scale=alt.Scale(domain=[low, high], nice=False), axis=alt.Axis(format="%", values=ticks))
    y = alt.Y("share:Q", title="% of images", axis=alt.Axis(tickCount=4))
    chart = alt.Chart(alt.Data(values=bins)).mark_rect(fill=MARK, stroke=None).encode(x=x, x2="to", y=y, y2=alt.Y2Datum(0))
    return _svg(chart.properties(width=WIDTH, height=90))


def density(counts: np.ndarray, names: Sequence[str], ranges: Sequence[Sequence[float]]) -> Markup:
    """Draw a heat map of images by two values, int [steps, steps]; a cell's opacity is the square root of its share."""
    edges = [np.linspace(values[0], values[-1], len(counts) + 1).tolist() for values in ranges]
    shares = 100 * counts / max(counts.sum(), 1)
    cells = [
        {"x": edges[0][i], "x2": edges[0][i + 1], "y": edges[1][j], "y2": edges[1][j + 1], "share": float(shares[i, j])}
        for i, j in np.argwhere(counts)
    ]
    x, y = (
        axis(f"{field}:Q", title=name, scale=alt.Scale(domain=list(values), nice=False), axis=alt.Axis(tickCount=8))
        for axis, field, name, values in zip((alt.X, alt.Y), "xy", names, ranges, strict=True)
    )
    opacity = alt.FillOpacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, float(shares.max())], range=[0.06, 1]), legend=None)
    chart = alt.Chart(alt.Data(values=cells)).mark_rect(fill=MARK, stroke=None)
    return _svg(chart.encode(x=x, x2="x2", y=y, y2="y2", fillOpacity=opacity).properties(width=MAP_WIDTH, height=MAP_WIDTH))


def drift_by_date(distances: Mapping[str, float], threshold: float) -> Markup:
    """Draw the total variation of each date (0 to 1) as a line, with a dashed line at `threshold`; points from there on stand out."""
    points = [{"date": date, "distance": distance, "over": distance >= threshold} for date, distance in distances.items()]
    top = max(2 * threshold, *distances.values()) * 1.05
    days = [dt.date.fromisoformat(date) for date in distances]
    tick_days = dict.fromkeys(days[round(i)] for i in np.linspace(0, len(days) - 1, 3))
    ticks = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in tick_days]
    x = alt.X("date:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%-d %b", values=ticks))
    y = alt.Y("distance:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(format=".0%", tickCount=3))
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y)
    colour = alt.condition("datum.over", alt.value(WARN), alt.value(MARK))
    limit = alt.Chart(alt.Data(values=[{"distance": threshold}])).mark_rule(stroke=WARN, strokeDash=[4, 3]).encode(y="distance:Q")
    chart = limit + base.mark_line(stroke=MARK, strokeWidth=1.5) + base.mark_point(filled=True, size=30, opacity=1).encode(fill=colour)
    return _svg(chart.properties(width=WIDTH, height=70))


def _svg(chart: alt.Chart | alt.LayerChart) -> Markup:
    """Return a chart as an SVG element in the page's colours, without namespaces, roles and ARIA labels: the page's figure has those."""
    axis: dict[str, Any] = {f"{part}Color": INK for part in ("label", "title", "tick", "domain", "grid")}
    axis |= {
        "gridOpacity": 0.12,
        "tickOpacity": 0.4,
        "domainOpacity": 0.4,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    styled = chart.configure(background="transparent", font="system-ui, sans-serif", aria=False, padding=2)
    styled = styled.configure_view(stroke=None).configure_axis(**axis)
    buffer = StringIO()
    styled.save(buffer, format="svg")
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    return Markup(re.sub(r' xmlns:xlink="[^"]*"| role="[^"]*"| aria-[a-z]+="[^"]*"', "", svg))
