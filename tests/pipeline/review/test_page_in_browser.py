"""The page in headless Chromium: labels given by real keys, kept, saved, loaded, and read by what trains and evaluates."""

import time

import numpy as np
import pytest

from pipeline.review.labels import read_answers

BLUR = "return getComputedStyle(document.getElementById('image')).filter"
NO_ANSWERS = "localStorage.clear(); location.reload()"


@pytest.fixture(scope="module")
def written(make_corpus, tmp_path_factory):
    """A review of thirty images and its folder."""
    corpus = make_corpus(tmp_path_factory.mktemp("review"))
    return corpus.review(), corpus.folder / "review"


class OpenPage:
    """The page, open in the browser."""

    def __init__(self, browser, folder, downloads):
        self.browser, self.downloads = browser, downloads
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        browser.get(f"file://{folder}/index.html")
        browser.execute_script(NO_ANSWERS)
        self.press()

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.browser)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def find(self, identity):
        return self.browser.find_element("id", identity)

    def text(self, identity):
        return self.find(identity).text

    def save(self, name):
        self.find("save").click()
        file = self.downloads / name
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return file


@pytest.fixture
def opened(browser, written, tmp_path):
    page = OpenPage(browser, written[1], tmp_path)
    yield page
    assert browser.get_log("browser") == []


def test_thirty_images_labelled_by_keys_are_read_by_training_and_evaluation(opened, written):
    from ugrie.data.format import DataSet
    from ugrie.data.labelled import read
    from ugrie.data.readers import read_table
    from ugrie.evaluation.labelled_set import FORMAT
    from ugrie.schemes.scheme import load_scheme

    review, folder = written
    opened.find("person").send_keys("Anna B.")
    opened.find("picture").click()
    for i in range(30):
        keys = {7: ("x", "5"), 8: ("n",)}.get(i, (str(1 + i % 8), str(1 + i % 9)))
        opened.press(*keys)
    assert opened.text("count") == "30 of 30 answered"
    assert "Save labels.csv now" in opened.text("message")
    file = opened.save("labels-anna-b.csv")
    answers = {answer.image: answer for answer in read_answers(file, review)}
    assert {answer.person for answer in answers.values()} == {"Anna B."}
    for i, image in enumerate(review.images):
        expected = {"mikels8": i % 8, "valence": i % 9}
        if i == 7:
            expected = {"valence": 4}
        assert answers[image.image].labels == ({} if i == 8 else expected)
    assert answers[review.images[7].image].cant_tell == ("mikels8",)
    assert [answer.image for answer in answers.values() if answer.not_for_set] == [review.images[8].image]
    (folder / "labels.csv").write_bytes(file.read_bytes())
    assert len(read_table(folder, FORMAT)) == 30
    schemes = [load_scheme("mikels8"), load_scheme("valence")]
    found = read(DataSet(path=folder.name, schemes={"mikels8": {}, "valence": {}}), folder.parent, schemes)
    assert found.targets["mikels8"].any(1).sum() == 28
    assert (found.targets["valence"][9] @ np.arange(1, 10)) == 1
    (folder / "labels.csv").unlink()


def test_the_model_s_label_is_hidden_until_all_questions_are_answered(opened):
    opened.find("compare").click()
    opened.press("1")
    assert not opened.find("model").is_displayed()
    opened.press("5")
    assert "The model’s mikels8: " in opened.text("model")
    assert "Why this image: " in opened.text("model")
    assert opened.text("place") == "Image 1 of 30"
    opened.press("\ue007")  # Enter
    assert opened.text("place") == "Image 2 of 30"


def test_images_are_blurred_until_they_are_asked_for(opened):
    opened.find("picture").click()
    assert opened.browser.execute_script(BLUR) == "none"  # a click on it shows it
    opened.press("\ue014")  # →
    assert opened.browser.execute_script(BLUR) == "blur(22px)"
    opened.press(" ")
    assert opened.browser.execute_script(BLUR) == "none"
    opened.press("1", "1")
    assert opened.browser.execute_script(BLUR) == "blur(22px)"
    opened.find("sharp").click()
    assert opened.browser.execute_script(BLUR) == "none"


def test_the_space_bar_shows_the_next_image_after_a_button_was_clicked(opened):
    for scheme in ("mikels8", "valence"):
        opened.browser.find_element("css selector", f"#scheme-{scheme} button").click()
    assert opened.text("count") == "1 of 30 answered"
    opened.press(" ")
    assert opened.browser.execute_script(BLUR) == "none"
    assert not opened.browser.find_elements("css selector", "[aria-pressed=true][data-index]")


def test_undo_takes_back_one_answer_after_the_other(opened):
    opened.press("3", "4", "n")
    assert (opened.text("count"), opened.text("place")) == ("2 of 30 answered", "Image 3 of 30")
    opened.press("u")
    assert (opened.text("count"), opened.text("place")) == ("1 of 30 answered", "Image 2 of 30")
    opened.press("u", "u")
    assert (opened.text("count"), opened.text("place")) == ("0 of 30 answered", "Image 1 of 30")
    assert not opened.browser.find_elements("css selector", "[aria-pressed=true][data-index]")
    opened.press("u")
    assert opened.text("message") == "There is nothing to undo."


def test_answers_outlast_the_page_and_are_loaded_from_a_file(opened):
    opened.press("3", "4", "2", "x", "n", "1")
    opened.browser.refresh()
    assert opened.text("count") == "3 of 30 answered"
    file = opened.save("labels.csv")
    saved = file.read_text()
    opened.browser.execute_script(NO_ANSWERS)
    opened.press()
    assert opened.text("count") == "0 of 30 answered"
    opened.find("load").send_keys(str(file))
    deadline = time.monotonic() + 20
    while "Loaded" not in opened.text("message") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert opened.text("message") == "Loaded the answers about 4 images."
    file.unlink()
    assert opened.save("labels.csv").read_text() == saved


def test_keys_typed_as_a_name_label_nothing_and_a_name_is_no_formula(opened):
    opened.find("person").send_keys('=1+2, "x"')
    assert opened.text("count") == "0 of 30 answered"
    opened.browser.find_element("css selector", "#scheme-mikels8 button").click()
    assert ',"1+2, ""x""",amusement,' in opened.save("labels-1-2-x.csv").read_text()


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_of_the_window_and_nothing_is_asked_for(opened, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page, beyond = opened.browser.execute_script("const page = document.documentElement; return [page.clientWidth, page.scrollWidth]")
    assert beyond == page
    resources = "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    assert opened.browser.execute_script(resources) == 0


def test_every_control_has_a_name(opened):
    script = "return [...document.querySelectorAll('button, input')].filter(e => !(e.ariaLabel || e.labels?.length || e.innerText.trim()))"
    assert opened.browser.execute_script(script) == []
