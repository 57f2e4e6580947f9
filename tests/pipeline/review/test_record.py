"""The record of a review: written and read back, refused where it is none."""

import pytest

from pipeline.errors import UserError
from pipeline.review.record import RECORD, hashes_of, read_review


def test_a_record_is_read_as_it_was_written(make_review, tmp_path):
    review = make_review(4, 100, random=2)
    review.write(tmp_path)
    assert read_review(tmp_path) == review
    assert hashes_of([tmp_path]) == {image.content_hash for image in review.images}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no review's folder: it has no review.json"),
        ("{}", "is no review's record (input: Field required)"),
        ("no", "is no review's record"),
    ],
)
def test_what_is_none_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError) as raised:
        read_review(tmp_path)
    assert said in str(raised.value)


def test_a_newer_version_s_record_is_refused(make_review, tmp_path):
    make_review(1, 1).model_copy(update={"version": 99}).write(tmp_path)
    with pytest.raises(UserError, match="written by a newer UGRIE"):
        read_review(tmp_path)
