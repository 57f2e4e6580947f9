"""A review's folder: chosen images of committed rows, fetched again, and the page."""

import csv
import datetime as dt
import hashlib
import json
import logging
import re

import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.review.page import MAKING
from pipeline.review.record import IMAGES, PAGE, RECORD, read_review


def test_a_review_has_the_page_the_record_and_the_images(corpus):
    review = corpus.review()
    folder = corpus.folder / "review"
    assert {path.name for path in folder.iterdir()} == {PAGE, RECORD, IMAGES}
    assert read_review(folder) == review
    assert len(review.images) == 30
    assert (review.population, review.exact, len(review.random)) == (40, True, 8)
    known = {hashlib.sha256(data).hexdigest(): uri for uri, data in corpus.photos}
    for image in review.images:
        assert known[image.content_hash] == image.uri
        with Image.open(folder / IMAGES / image.image) as opened:
            assert (opened.format, opened.size) == ("JPEG", (MAKING.size, MAKING.size))
    assert {image.run_id for image in review.images} == {"night-2026-01-01", "night-2026-01-02"}


def test_the_same_seed_chooses_the_same_images_and_another_does_not(corpus):
    first, again, other = (corpus.review(f"r{i}", seed=seed) for i, seed in enumerate((1, 1, 2)))
    assert first == again
    assert {image.image for image in first.random} != {image.image for image in other.random}


def test_without_embeddings_images_differ_by_their_probabilities(make_corpus, tmp_path):
    assert len(make_corpus(tmp_path, embedded=False).review().images) == 30


def test_only_the_nights_and_schemes_that_are_asked_for(corpus):
    review = corpus.review(nights=(dt.date(2026, 1, 2),), schemes=("valence",), count=10)
    assert (review.runs, list(review.schemes), review.population) == (("night-2026-01-02",), ["valence"], 20)


def test_a_later_review_leaves_out_an_earlier_one_s_images(corpus):
    first = {image.content_hash for image in corpus.review("first", count=15).images}
    second = corpus.review("second", count=40, without=frozenset(first))
    assert len(second.images) == 25
    assert not first & {image.content_hash for image in second.images}


def test_images_that_are_gone_or_changed_make_room_for_others(corpus, images, caplog):
    for i in range(20):
        path = corpus.folder / "in" / f"{i}.jpg"
        path.write_bytes(images.jpeg(1000 + i)) if i % 2 else path.unlink()
    with caplog.at_level(logging.WARNING):
        review = corpus.review(count=15)
    assert len(review.images) == 15
    assert {int(re.search(r"(\d+)\.jpg", image.uri)[1]) for image in review.images} <= set(range(20, 40))
    assert set(review.unavailable) <= {"missing: there is no such object", "the image has changed since it was annotated"}
    assert "others took their places" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nights": (dt.date(2026, 1, 3),)}, "--nights 2026-01-03: no run of that date holds images: its runs are of 2026-01-01 to 2026"),
        ({"schemes": ("valance",)}, "--schemes valance: no run has this scheme (did you mean 'valence'?); they have mikels8, valence"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(corpus, settings, said):
    with pytest.raises(UserError) as raised:
        corpus.review(**settings)
    assert said in str(raised.value)
    assert not (corpus.folder / "review").exists()


def test_a_folder_that_holds_something_is_left_alone(corpus):
    corpus.review()
    with pytest.raises(UserError, match="holds a review already"):
        corpus.review()
    (corpus.folder / "mine").mkdir()
    (corpus.folder / "mine" / "labels.csv").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        corpus.review("mine")
    assert (corpus.folder / "mine" / "labels.csv").read_text() == "mine"


def test_where_no_image_is_left_the_reason_is_said(corpus):
    for path in (corpus.folder / "in").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the images can be fetched any more, the most frequent reason is: missing"):
        corpus.review()


def test_the_page_is_one_file_that_names_no_image_and_lets_only_its_own_script_run(corpus, read_page):
    corpus.review()
    text = (corpus.folder / "review" / PAGE).read_text()
    page = read_page(text)
    assert page.askew == page.open == []
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert not [element for element in page.all("img") if element.get("src")]
    assert "file://" not in text
    data = json.loads(re.search(r'<script type="application/json" id="review">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["images"]) == 30


def test_labels_that_are_hostile_stay_text(make_review, images):
    """What a table's metadata says can't end the script that holds it."""
    from pipeline.review import page
    from pipeline.review.record import Review

    review = make_review(1, 1)
    scheme = review.schemes["mood"].model_copy(update={"labels": ("</script><script>alert(1)</script>", "<!--", "b")})
    hostile = Review.model_validate(
        review.model_dump()
        | {
            "schemes": {"mood": scheme.model_dump()},
            "images": [
                image.model_copy(update={"predictions": {"mood": image.predictions["mood"]}}).model_dump() for image in review.images
            ],
        }
    )
    text = page.page(hostile, {image.content_hash: images.jpeg(1) for image in hostile.images})
    assert text.count("</script>") == 2
    assert "<!--" not in text


def test_training_and_evaluation_read_the_folder_with_its_labels(corpus):
    """Half of the images have labels; one has those of two people."""
    import numpy as np

    from pipeline.review.labels import Answer, to_csv
    from ugrie.data.format import DataSet
    from ugrie.data.labelled import read
    from ugrie.data.readers import read_table
    from ugrie.evaluation.labelled_set import FORMAT
    from ugrie.schemes.scheme import load_scheme

    review = corpus.review()
    folder = corpus.folder / "review"
    given = [Answer(image.image, "a", {"mikels8": 2, "valence": i % 9}) for i, image in enumerate(review.images[:15])]
    given += [Answer(given[0].image, "b", {"mikels8": 3}, ("valence",)), Answer(review.images[20].image, "a", {}, (), True)]
    (folder / "labels.csv").write_text(to_csv(given, review))
    assert len(read_table(folder, FORMAT)) == 17
    schemes = [load_scheme("mikels8"), load_scheme("valence")]
    found = read(DataSet(path="review", schemes={"mikels8": {}, "valence": {}}), corpus.folder, schemes)
    assert found.targets["mikels8"].argmax(1)[:16].tolist() == [2] * 15 + [3]
    assert (found.targets["valence"][:15] @ np.arange(1, 10)).tolist() == [i % 9 + 1 for i in range(15)]
    assert found.targets["valence"].any(1).sum() == 15
    assert found.groups[0] == found.groups[15]
    with (folder / "labels.csv").open() as lines:
        assert next(csv.reader(lines)) == ["image", "person", "mikels8", "valence", "cant_tell", "not_for_set"]
