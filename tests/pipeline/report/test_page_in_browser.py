"""The pages in headless Chromium: they run no script, request nothing, work with the keyboard and fit a phone."""

import json

import pytest

from pipeline.report import index
from pipeline.report.page import write
from pipeline.table.output_folder import OutputFolder

HOSTILE = "\"><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def opened(browser, images, night, tmp_path_factory):
    """A page with images and hostile text, open in the browser."""
    folder = tmp_path_factory.mktemp("page")
    photos = []
    for i in range(9):
        (folder / f"{i}.jpg").write_bytes(images.jpeg(i))
        photos.append((f"file://{folder}/{i}.jpg", images.jpeg(i)))
    photos += [(f"s3://b/{HOSTILE}{i}.jpg", bytes([i])) for i in range(3)] + [("javascript:document.title='run'", b"j")]
    failures = [(f"s3://b/{HOSTILE}", "corrupt", f"</style>{HOSTILE}"), ("javascript:document.title='run'", "missing", HOSTILE)]
    night(folder, "2026-01-01", photos, failures)
    night(folder, "2026-01-02", photos, failures, input=HOSTILE, tuning={HOSTILE: HOSTILE})
    browser.get(f"file://{write(OutputFolder(str(folder), {}))}")
    return browser


@pytest.fixture(scope="module")
def all_nights(night, tmp_path_factory):
    """The address of a page of all nights, with hostile text."""
    folder = tmp_path_factory.mktemp("nights")
    for day in range(1, 21):
        photos = [(f"s3://b/{i}.jpg", b"%d-%d" % (day, i)) for i in range(50)]
        record = night(folder, f"2026-01-{day:02}", photos, lean=1 + day // 20, model=f"{HOSTILE}@1", config={"report_images": False})
    write(OutputFolder(str(folder), {}))
    path = folder / "runs" / f"{record.run_id}.json"
    text = json.loads(path.read_text())
    text["counts"]["labels"][HOSTILE] = {HOSTILE: 50}
    (folder / "runs" / "evil.json").write_text(json.dumps(text | {"run_id": HOSTILE, "date": "2026-01-19"}))
    index.write(OutputFolder(str(folder), {}))
    return f"file://{folder}/index.html"


@pytest.fixture(params=["a run's page", "all nights"])
def either(request, opened, all_nights):
    """A page, open in the browser."""
    address = opened.current_url
    if request.param == "all nights":
        opened.get(all_nights)
    yield opened
    if request.param == "all nights":
        opened.get(address)


def test_the_page_of_all_nights_leads_to_a_run_s_page_and_back(opened, all_nights):
    address = opened.current_url
    opened.get(all_nights)
    assert opened.title.startswith("All nights · nights")
    opened.find_element("css selector", ".nights a").click()
    assert opened.title.startswith("Night of 2026-01-20")
    opened.find_element("link text", "all nights").click()
    assert opened.current_url == all_nights
    opened.get(address)


def test_nothing_runs_and_nothing_is_asked_for(either):
    opened = either
    assert opened.title.startswith(("Night of 2026-01-02 · made-up@0123", "All nights · nights"))
    assert opened.get_log("browser") == []
    assert opened.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert opened.execute_script("return document.scripts.length") == 0


def test_images_are_blurred_until_they_are_asked_for_with_the_keyboard(opened):
    blur = "return [...document.querySelectorAll('.tile img')].map(image => getComputedStyle(image).filter)"
    assert set(opened.execute_script(blur)) == {"blur(14px)"}
    first = opened.find_element("css selector", ".tile input")
    first.send_keys(" ")
    assert opened.execute_script(blur)[:2] == ["none", "blur(14px)"]
    reveal = opened.find_element("css selector", "#reveal")
    reveal.send_keys(" ")
    assert set(opened.execute_script(blur)) == {"none"}
    reveal.send_keys(" ")
    assert opened.execute_script(blur)[:2] == ["none", "blur(14px)"]


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_of_the_window(either, width):
    opened = either
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    inner, page, beyond = opened.execute_script(
        "const page = document.documentElement; return [innerWidth, page.clientWidth, page.scrollWidth]"
    )
    assert inner == width
    assert beyond == page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_they_stand_on(opened, scheme):
    """WCAG 2.1's contrast of 4.5 to 1, between the colours that the page is made of."""
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    colour = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    found = {
        name: luminance(opened.execute_script(colour, f"--{name}"))
        for name in ("page", "card", "ink", "quiet", "accent", "warn", "warn-back")
    }
    for text, back in [(text, back) for text in ("ink", "quiet", "accent", "warn") for back in ("page", "card")] + [("warn", "warn-back")]:
        light, dark = sorted((found[text], found[back]), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
