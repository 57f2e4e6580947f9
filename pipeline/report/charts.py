"""The page's charts as SVG in the page's colours: text and axes in `currentColor`, marks in the CSS variable `--accent`.

Altair and vl-convert draw them in this process. Each is small enough for a phone.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from markupsafe import Markup

WIDTH, MAP_WIDTH = 270, 300  # pixels of the plot area
INK, MARK, WARN = "currentColor", "var(--accent)", "var(--warn)"
BACK = "var(--card)"
BY_POLARITY = {"positive": "var(--positive)", "negative": "var(--negative)", None: "var(--quiet)"}
MIN_SPAN = 0.1  # of an ordinal scheme's range: a chart of its means shows at least so much of it
Shares = tuple[str | None, float, Mapping[str, float]]  # polarity, opacity, share by date


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
    x = _date_axis(list(distances))
    y = alt.Y("distance:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(format=".0%", tickCount=3))
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y)
    colour = alt.condition("datum.over", alt.value(WARN), alt.value(MARK))
    limit = alt.Chart(alt.Data(values=[{"distance": threshold}])).mark_rule(stroke=WARN, strokeDash=[4, 3]).encode(y="distance:Q")
    chart = limit + base.mark_line(stroke=MARK, strokeWidth=1.5) + base.mark_point(filled=True, size=30, opacity=1).encode(fill=colour)
    return _svg(chart.properties(width=WIDTH, height=70))


def shares_by_date(bands: Sequence[Shares], marked: Sequence[str]) -> Markup:
    """Draw stacked areas, from the bottom up, of shares (0 to 1) of the same dates; triangles above mark dates."""
    dates = list(bands[0][2])
    points = [{"date": date, "band": i, "share": share} for i, (_, _, shares) in enumerate(bands) for date, share in shares.items()]
    numbers = list(range(len(bands)))
    fills = alt.Scale(type="ordinal", domain=numbers, range=[BY_POLARITY[polarity] for polarity, _, _ in bands])
    opacities = alt.Scale(type="ordinal", domain=numbers, range=[opacity for _, opacity, _ in bands])
    areas = alt.Chart(alt.Data(values=points)).mark_area(stroke=BACK, strokeWidth=1, strokeOpacity=1)
    areas = areas.encode(
        x=_date_axis(dates),
        y=alt.Y("share:Q", title=None, stack="zero", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1])),
        fill=alt.Fill("band:O", scale=fills, legend=None),
        fillOpacity=alt.FillOpacity("band:O", scale=opacities, legend=None),
        order="band:Q",
    )
    marks = alt.Chart(alt.Data(values=[{"date": date} for date in marked]))
    marks = marks.mark_point(shape="triangle-down", filled=True, fill=WARN, size=45, opacity=1).encode(x="date:T", y=alt.value(-6))
    return _svg((areas + marks).properties(width=WIDTH, height=110))


def mean_by_date(means: Mapping[str, float], limits: Sequence[float] | None, marked: Sequence[str]) -> Markup:
    """Draw a line of an ordinal scheme's means, whose range is `limits`; points mark dates."""
    low, high = min(means.values()), max(means.values())
    room = max(0.1 * (high - low), (MIN_SPAN * (limits[-1] - limits[0]) - (high - low)) / 2 if limits else 0, 1e-3)
    points = [{"date": date, "mean": mean, "marked": date in marked} for date, mean in means.items()]
    scale = alt.Scale(domain=[low - room, high + room], zero=False, nice=False)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=_date_axis(list(means)), y=alt.Y("mean:Q", title=None, scale=scale, axis=alt.Axis(tickCount=4))
    )
    marks = base.transform_filter("datum.marked").mark_point(filled=True, fill=WARN, size=45, opacity=1)
    return _svg((base.mark_line(stroke=MARK, strokeWidth=1.5) + marks).properties(width=WIDTH, height=110))


def _date_axis(dates: Sequence[str]) -> alt.X:
    """Return the x axis of some dates, in order, with ticks at the first, the middle and the last."""
    days = [dt.date.fromisoformat(date) for date in dates]
    tick_days = dict.fromkeys(days[round(i)] for i in np.linspace(0, len(days) - 1, 3))
    ticks = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in tick_days]
    return alt.X("date:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%-d %b", values=ticks))


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
    spec = styled.to_dict(validate=False)  # validation takes most of the time
    text = vl_convert.vegalite_to_svg(spec, vl_version="_".join(alt.SCHEMA_VERSION.split(".")[:2]))
    svg = text[text.index("<svg") :]
    return Markup(re.sub(r' xmlns:xlink="[^"]*"| role="[^"]*"| aria-[a-z]+="[^"]*"', "", svg))
