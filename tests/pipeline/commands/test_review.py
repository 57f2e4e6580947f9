"""`ugrie review`: writes a review, merges people's labels, measures the model by them."""

import hashlib
import json

import pytest

from pipeline.review import labels, page
from pipeline.review.record import read_review


@pytest.fixture
def output(tmp_path, images, night):
    (tmp_path / "in").mkdir()
    photos = []
    for i in range(12):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(images.jpeg(i))
        photos.append(((tmp_path / "in" / f"{i}.jpg").as_uri(), images.jpeg(i)))
    (tmp_path / "out").mkdir()
    night(tmp_path / "out", "2026-01-01", photos, schemes=("polarity3",), input=str(tmp_path / "in"))
    return tmp_path


def test_from_an_output_to_a_measure(command, output, capsys):
    folder = output / "review"
    assert command.run(["--input", str(output / "out"), "--output", str(folder), "--count", "10", "--random-share", "0.6"]) == 0
    said = capsys.readouterr().out
    assert "10 of 12 different images, 6 drawn at random" in said
    assert f"open {folder}/index.html" in said
    review = read_review(folder)
    for person in ("anna", "ben"):
        answers = [labels.Answer(image.image, "", {"polarity3": image.predictions["polarity3"].choice}) for image in review.images]
        (output / f"{person}.csv").write_text(labels.to_csv(answers, review))
    assert command.run(["--merge", str(output / "anna.csv"), str(output / "ben.csv"), "--output", str(folder)]) == 0
    assert "20 rows of 2 people" in capsys.readouterr().out
    assert command.run(["--measure", str(folder / "labels.csv"), "--json", str(output / "m.json")]) == 0
    assert "polarity3: 10 images labelled by 2 people, 6 of them drawn at random" in capsys.readouterr().out
    measures = json.loads((output / "m.json").read_text())["schemes"]["polarity3"]["measures"]
    assert measures["accuracy"]["estimate"] == measures["krippendorff_alpha"]["estimate"] == 1


def test_a_later_review_is_given_the_earlier_ones(command, output, monkeypatch, capsys):
    assert command.run(["--input", str(output / "out"), "--output", str(output / "one"), "--count", "8"]) == 0
    given = []
    monkeypatch.setattr(page, "write", lambda folder, to, settings: given.append(settings) or read_review(output / "one"))
    flags = ["--after", str(output / "one"), "--nights", "2026-01-01, 2026-01-02", "--schemes", "polarity3", "--seed", "7"]
    assert command.run(["--input", str(output / "out"), "--output", str(output / "two"), *flags]) == 0
    assert len(given[0].without) == 8
    assert [str(night) for night in given[0].nights] == ["2026-01-01", "2026-01-02"]
    assert (given[0].schemes, given[0].seed, given[0].count) == (("polarity3",), 7, 100)


def test_suppressed_images_are_not_shown(command, output, capsys):
    """By URI, and by content hash."""
    uris = [(output / "in" / f"{i}.jpg").as_uri() for i in range(5)]
    content = hashlib.sha256((output / "in" / "5.jpg").read_bytes()).hexdigest()
    (output / "list.txt").write_text("\n".join([*uris, content]))
    flags = ["--output", str(output / "review"), "--suppress", str(output / "list.txt")]
    assert command.run(["--input", str(output / "out"), *flags]) == 0
    assert "6 of 6 different images" in capsys.readouterr().out
    assert not {*uris, (output / "in" / "5.jpg").as_uri()} & {image.uri for image in read_review(output / "review").images}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "review: give one of --input, --merge and --measure\n"),
        (["--input", "x", "--measure", "y"], "review: give one of --input, --merge and --measure, not --input and --measure"),
        (["--input", "x"], "review: --input needs --output, the review's folder"),
        (["--input", "x", "--output", "y", "--count", "0"], "review: --count 0: must be from 1 to 1000"),
        (["--input", "x", "--output", "y", "--random-share", "0"], "review: --random-share 0: must be above 0"),
        (["--input", "x", "--output", "y", "--nights", "today"], "review: --nights today: must be dates, such as 2026-11-28,2026-11-29"),
        (["--input", "none", "--output", "y"], "review: the output holds no committed run with images: check --input"),
        (["--input", "x", "--output", "y", "--after", "none"], "review: none is no review's folder: it has no review.json"),
        (["--merge", "a.csv", "--output", "none"], "review: none is no review's folder"),
        (["--measure", "none/labels.csv"], "is no review's folder: it has no review.json, which `ugrie review` writes there"),
    ],
)
def test_what_is_wrong_is_one_line(command, capsys, flags, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.run(flags) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
