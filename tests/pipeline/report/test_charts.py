"""Charts as SVG: their marks and texts, in the page's own colours, without anything that the page's policy forbids."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.report.charts import WIDTH, density, drift_by_date, histogram, mean_by_date, shares_by_date

SVG = "{http://www.w3.org/2000/svg}"


def marks(chart, kind="path"):
    return [element for element in ET.fromstring(chart).iter(SVG + kind) if element.get("fill") == "var(--accent)"]


def texts(chart):
    return [element.text for element in ET.fromstring(chart).iter(SVG + "text") if element.get("opacity") != "0"]


def test_a_histogram_has_a_bar_for_each_bin():
    chart = histogram(np.array([1, 0, 3, 4]), 0, 1, "probability")
    assert len(marks(chart)) == 4
    assert {"0%", "50%", "100%", "probability", "% of images"} <= set(texts(chart))


def test_a_map_has_a_cell_wherever_there_are_images():
    counts = np.zeros((5, 5), int)
    counts[0, 0], counts[4, 2], counts[1, 3] = 1, 100, 25
    cells = [
        float(mark.get("fill-opacity"))
        for mark in marks(density(counts, ("valence", "arousal"), [(1, 9), (1, 9)]))
        if mark.get("d", "")[0] == "M"
    ]
    assert sum(opacity == 1 for opacity in cells) >= 1
    assert len(cells) >= 3
    assert {"valence", "arousal"} <= set(texts(density(counts, ("valence", "arousal"), [(1, 9), (1, 9)])))


def test_nights_beyond_the_limit_stand_out():
    chart = drift_by_date({"2026-01-02": 0.01, "2026-01-03": 0.2, "2026-01-04": 0.03}, 0.05)
    points = [
        element.get("fill")
        for element in ET.fromstring(chart).iter(SVG + "path")
        if element.get("fill") in ("var(--accent)", "var(--warn)")
    ]
    assert sorted(points) == ["var(--accent)", "var(--accent)", "var(--warn)"]


@pytest.mark.parametrize(
    "chart",
    [
        histogram(np.zeros(4, int), 0, 1, "<b>&"),
        density(np.ones((2, 2), int), "<>", [(0, 1), (0, 1)]),
        drift_by_date({"2026-01-02": 0, "2026-01-03": 0}, 0.05),
    ],
)
def test_a_page_can_hold_it(chart):
    for element in ET.fromstring(chart).iter():
        assert element.tag.removeprefix(SVG) in {"svg", "g", "path", "line", "text", "rect", "tspan"}
        assert not {"style", "id", "class"} & set(element.keys()) - {"class"}
        assert not any(name.startswith("on") or "href" in name for name in element.keys())  # noqa: SIM118
        assert element.get("fill") in (None, "none", "currentColor", "transparent", "var(--accent)", "var(--warn)")


def test_shares_are_bands_in_the_page_s_colours_with_a_triangle_above_each_marked_date():
    dates = ["2026-01-01", "2026-01-02", "2026-01-03"]
    bands = [("negative", 1.0, 0.25), ("negative", 0.35, 0.25), (None, 1.0, 0.3), ("positive", 0.65, 0.2)]
    svg = shares_by_date([(polarity, opacity, dict.fromkeys(dates, share)) for polarity, opacity, share in bands], dates[1:2])
    fills = re.findall(r'fill="var\(--(negative|quiet|positive)\)" fill-opacity="([\d.]+)"', svg)
    assert fills == [("negative", "1"), ("negative", "0.35"), ("quiet", "1"), ("positive", "0.65")]
    assert re.findall(r'<path transform="translate\(([\d.]+),-6\)"[^>]* fill="var\(--warn\)"', svg) == [str(WIDTH // 2)]
    assert {"0%", "50%", "100%", "1 Jan", "3 Jan"} <= set(texts(svg))


def test_means_that_hardly_change_make_no_mountains():
    means = {"2026-01-01": 5.0, "2026-01-02": 5.01}
    flat, steep = (mean_by_date(means, limits, ["2026-01-02"]) for limits in ([1, 9], None))
    rises = []
    for svg in (flat, steep):
        first, last = re.search(r'd="M[\d.]+,([\d.]+)L[\d.]+,([\d.]+)" stroke="var\(--accent\)"', svg).groups()
        rises.append(float(first) - float(last))
        assert svg.count('fill="var(--warn)"') == 1
    assert 0 < rises[0] < 3
    assert rises[1] > 50, "without a range the chart shows the values alone"
