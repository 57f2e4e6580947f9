"""Estimates from a review's labels, checked against their definitions and by simulation."""

import numpy as np
import pytest

from pipeline.review.labels import Answer
from pipeline.review.measure import Sample, agreement, measure, share, table


def answers(review, mood=None, level=None, person="a"):
    """Labels of every image: by default the model's own."""
    found = []
    for i, image in enumerate(review.images):
        labels = {name: prediction.choice for name, prediction in image.predictions.items()}
        labels |= {name: given[i] for name, given in (("mood", mood), ("level", level)) if given is not None}
        found.append(Answer(image.image, person, labels))
    return found


def estimates(review, given, name):
    return {key: value and value["estimate"] for key, value in measure(review, given)["schemes"][name]["measures"].items()}


def test_only_random_images_count(make_review):
    review = make_review(40, 4000, random=20)
    wrong = [(image.predictions["mood"].choice + (image.part != "random")) % 3 for image in review.images]
    found = measure(review, answers(review, mood=wrong))["schemes"]["mood"]
    assert found["measures"]["accuracy"]["estimate"] == 1
    assert (found["images"], found["random"], found["people"]) == (40, 20, 1)


def test_wilson_s_interval_is_that_of_the_textbook():
    """Newcombe, Statistics in Medicine 17, 1998: 81 of 263 and 15 of 148."""
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        right = np.arange(n) < count
        estimate, interval = share(Sample(np.ones((n, 1)), np.ones((n, 1)), np.zeros(n, int), 0.0), right)
        assert estimate == pytest.approx(count / n)
        assert interval == pytest.approx((low, high), abs=1e-4)


def test_a_corpus_that_is_labelled_whole_has_no_uncertainty(make_review):
    review = make_review(30, 30)
    found = measure(review, answers(review))["schemes"]["mood"]["measures"]
    assert found["accuracy"]["interval"] == (1, 1)
    low, high = found["overconfidence"]["interval"]
    assert low == pytest.approx(high)


def test_an_ordinal_scheme_has_its_error_and_its_bias(make_review):
    review = make_review(30, 3000)
    values = np.array([np.dot((1, 2, 3), image.predictions["level"].probs) for image in review.images])
    found = estimates(review, answers(review, level=[0] * 30), "level")
    assert found["mae"] == pytest.approx(np.mean(values - 1))
    assert found["bias"] == pytest.approx(np.mean(values - 1))


def test_the_label_of_most_people_counts_and_ties_count_by_half(make_review):
    review = make_review(6, 600)
    own = [image.predictions["mood"].choice for image in review.images]
    other = [(label + 1) % 3 for label in own]
    assert estimates(review, answers(review) + answers(review, mood=other, person="b"), "mood")["accuracy"] == 0.5
    two = answers(review, mood=other, person="b") + answers(review, mood=other, person="c")
    assert estimates(review, answers(review) + two, "mood")["accuracy"] == 0


def test_krippendorff_s_alpha_is_that_of_his_example():
    """Krippendorff, Computing Krippendorff's alpha-reliability, 2011: four observers, twelve units."""
    nan = 0
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
    votes = np.array([[sum(given[unit] == label for given in observers) for label in range(1, 6)] for unit in range(12)])
    sample = Sample(votes, votes, np.zeros(12, int), 0.0)
    nominal, (low, high) = agreement(sample, 1.0 - np.eye(5))
    assert nominal == pytest.approx(0.743, abs=5e-4)
    assert low < nominal < high
    assert agreement(sample, np.subtract.outer(np.arange(5), np.arange(5)) ** 2)[0] == pytest.approx(0.849, abs=5e-4)


def test_labels_of_one_person_say_nothing_about_agreement(make_review):
    review = make_review(10, 1000)
    assert estimates(review, answers(review), "mood")["krippendorff_alpha"] is None


def test_images_that_are_not_for_the_set_and_those_that_nobody_can_tell_are_left_out(make_review):
    review = make_review(20, 2000)
    given = answers(review)
    given[0] = Answer("0.jpg", "a", {"mood": 0}, (), True)
    given[1] = Answer("1.jpg", "a", {"level": 0}, ("mood",))
    found = measure(review, given)["schemes"]
    assert (found["mood"]["random"], found["level"]["random"]) == (18, 19)


def test_too_few_labels_give_no_estimate_but_say_what_is_missing(make_review):
    review = make_review(20, 2000)
    found = measure(review, answers(review)[:4])
    assert found["schemes"]["mood"]["measures"] == {}
    assert "at least 5 images of the random part need a label" in table(found)


def test_intervals_cover_what_they_estimate(make_review):
    """200 reviews of a corpus of 3,000 images whose labels follow the model's probabilities."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([0.5] * 3, 3000)
    labels = np.array([rng.choice(3, p=p) for p in probs])
    right = (probs.argmax(1) == labels).mean()
    confident = probs.max(1).mean() - right
    covered = {"accuracy": 0, "overconfidence": 0}
    for _ in range(200):
        rows = rng.permutation(3000)[:30]
        review = make_review(30, 3000)
        images = [
            image.model_copy(
                update={
                    "predictions": image.predictions
                    | {
                        "mood": image.predictions["mood"].model_copy(
                            update={"choice": int(probs[row].argmax()), "probs": tuple(probs[row])}
                        )
                    }
                }
            )
            for image, row in zip(review.images, rows, strict=True)
        ]
        review = review.model_copy(update={"images": tuple(images)})
        found = measure(review, answers(review, mood=labels[rows].tolist()))["schemes"]["mood"]["measures"]
        for key, value in (("accuracy", right), ("overconfidence", confident)):
            low, high = found[key]["interval"]
            covered[key] += low <= value <= high
    assert min(covered.values()) >= 180
