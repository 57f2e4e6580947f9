"""Corrections: they learn from new labels, stay small elsewhere, and are what a Gaussian process's posterior mode says."""

import copy

import numpy as np
import pytest
import torch

from ugrie import UGRIE
from ugrie.adapting import fit as fitting
from ugrie.adapting.fit import Answers, anchor_embeddings, answers_of, apply, fit
from ugrie.evaluation.evaluate import predict
from ugrie.model.adaptation import directions
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import load_scheme

POLARITY, VALENCE, MIKELS = (load_scheme(name) for name in ("polarity2", "valence", "mikels8"))
BASE = "tiny@0123456789ab"


@pytest.fixture
def model(make_model) -> UGRIE:
    """A tiny model of two schemes, whose components are those of `images` and whose landmarks are six of them."""
    model = make_model([POLARITY, VALENCE])
    model.mapper.fit_projection(torch.from_numpy(images(500, 9)))
    model.mapper.landmarks.copy_(model.mapper.components(torch.from_numpy(images(6, 8))))
    return model


def images(count: int, seed: int = 0) -> np.ndarray:
    """Embeddings of which the first coordinates say most."""
    return (np.random.default_rng(seed).normal(size=(count, 8)) * [3, 2, 1, 1, 0.1, 0.1, 0.1, 0.1]).astype(np.float32)


def labels_of(scheme, chosen) -> np.ndarray:
    return np.eye(len(scheme.labels), dtype=np.float32)[np.asarray(chosen, int)]


def by_first_coordinate(scheme, embeddings: np.ndarray) -> np.ndarray:
    """Labels that follow from the embedding: the first or the last by a coordinate's sign."""
    return labels_of(scheme, np.where(embeddings[:, 0] > 0, len(scheme.labels) - 1, 0))


def adapted(model: UGRIE, embeddings: np.ndarray, targets, schemes, zero_shot=None) -> UGRIE:
    """Return a copy of the model, adapted to these labels."""
    other, prior = copy.deepcopy(model), zero_shot or {}
    anchors = answers_of(model, anchor_embeddings(model.mapper), prior)
    apply(other, fit(answers_of(model, embeddings, prior), anchors, targets, schemes), schemes, BASE, prior)
    return other


def test_an_anchors_components_are_its_landmark(model):
    found = model.mapper.components(torch.from_numpy(anchor_embeddings(model.mapper)))
    torch.testing.assert_close(found, model.mapper.landmarks, atol=1e-5, rtol=0)


def test_landmarks_that_are_not_used_are_no_anchors_and_there_are_at_most_so_many(model, monkeypatch):
    model.mapper.landmarks[3:] = 0
    assert len(anchor_embeddings(model.mapper)) == 3
    monkeypatch.setattr(fitting, "ANCHORS", 2)
    assert len(anchor_embeddings(model.mapper)) == 2


@pytest.mark.parametrize("scheme", [POLARITY, VALENCE], ids=lambda scheme: scheme.name)
def test_new_labels_are_learnt_and_the_other_scheme_keeps_its_probabilities(model, scheme):
    seen, new = images(200), images(200, 1)
    other = adapted(model, seen, {scheme.name: by_first_coordinate(scheme, seen)}, [scheme])
    before, after = predict(model, new), predict(other, new)
    truth = by_first_coordinate(scheme, new)

    def loss(probs):
        return -(truth * np.log(np.maximum(probs[scheme.name], 1e-9))).sum(1).mean()

    assert loss(after.probs) < loss(before.probs) - 0.2
    if scheme is VALENCE:  # the last slot: the first reads nothing of it
        np.testing.assert_allclose(after.probs["polarity2"], before.probs["polarity2"], atol=1e-6)


def test_a_scheme_with_its_own_answers_as_labels_stays_as_it_is(model):
    seen = images(60)
    other = adapted(model, seen, {"polarity2": predict(model, seen).probs["polarity2"]}, [POLARITY])
    new = images(30, 1)
    np.testing.assert_allclose(predict(other, new).probs["polarity2"], predict(model, new).probs["polarity2"], atol=2e-3)


def test_anchors_keep_the_correction_small_at_the_landmarks(model):
    """As against a fit without them."""
    seen, at = images(6), anchor_embeddings(model.mapper)
    targets = {"polarity2": labels_of(POLARITY, np.ones(6, int))}
    start = answers_of(model, seen, {})
    none = Answers(np.empty((0, start.components.shape[1])), {"polarity2": np.empty((0, 2))})
    moved = {}
    for name, anchors in (("with", answers_of(model, at, {})), ("without", none)):
        other = copy.deepcopy(model)
        apply(other, fit(start, anchors, targets, [POLARITY]), [POLARITY], BASE, {})
        moved[name] = np.abs(predict(other, at).probs["polarity2"] - predict(model, at).probs["polarity2"]).mean()
    assert moved["with"] < 0.5 * moved["without"]


def test_the_fit_is_the_mode_of_the_posterior(model):
    """Its gradient is zero: the prior's pull on the function equals the labels' (representer theorem)."""
    seen = images(40)
    targets = {"valence": labels_of(VALENCE, np.random.default_rng(2).integers(9, size=40))}
    start, anchors = answers_of(model, seen, {}), answers_of(model, anchor_embeddings(model.mapper), {})
    fitted = fit(start, anchors, targets, [VALENCE])
    kernel = np.exp(-np.linalg.norm(fitted.support[:, None] - fitted.support[None], axis=-1) / 2)
    scores = np.concatenate([start.log_probs["valence"], anchors.log_probs["valence"]])
    scores = scores + kernel @ fitted.weights["valence"] @ directions(VALENCE)
    probs = np.exp(scores - np.logaddexp.reduce(scores, 1, keepdims=True))
    wanted = np.concatenate([targets["valence"], np.exp(anchors.log_probs["valence"])])
    pull = (wanted - probs * wanted.sum(1, keepdims=True)) @ directions(VALENCE).T
    np.testing.assert_allclose(fitted.weights["valence"], fitting.SPREAD**2 * pull, atol=0.02)


def test_a_scheme_new_to_the_model_starts_from_its_labels_frequencies_and_learns(model):
    seen, new = images(200), images(100, 1)
    chosen = np.where(seen[:, 0] > 0, 7, 2)
    other = adapted(model, seen, {"mikels8": labels_of(MIKELS, chosen)}, [MIKELS])
    assert other.config.few_shot == ("mikels8",)
    assert [scheme.name for scheme in other.config.schemes] == ["polarity2", "valence", "mikels8"]
    found = predict(other, new)
    assert (found.choices["mikels8"] == np.where(new[:, 0] > 0, 7, 2)).mean() > 0.85
    np.testing.assert_allclose(found.probs["mikels8"].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found.probs["polarity2"], predict(model, new).probs["polarity2"], atol=1e-6)
    bias = other.adaptation.bias.exp().numpy()
    np.testing.assert_allclose(bias, (np.bincount(chosen, minlength=8) + 1) / 208, rtol=1e-5)


def test_its_clause_stands_in_the_sentence_in_the_order_asked_for(model):
    seen = images(40)
    other = adapted(model, seen, {"mikels8": labels_of(MIKELS, seen[:, 0] > 0)}, [MIKELS])
    annotation = other.annotate_embeddings(images(1, 4), ["mikels8", "polarity2"])[0]
    assert other.config.template(("mikels8", "polarity2")).parse(annotation.sentence) == {
        name: reading.label for name, reading in annotation.readings.items()
    }
    assert list(annotation.readings) == ["mikels8", "polarity2"]
    alone = other.annotate_embeddings(images(1, 4), ["mikels8"])[0]
    assert alone["mikels8"] == annotation["mikels8"]
    with pytest.raises(ValueError, match="BART can't write mikels8"):
        other.annotate_embeddings(images(1), ["mikels8"], decode="generate")


def test_a_scheme_with_zero_shot_answers_starts_from_them(model):
    vectors = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    prior = ZeroShot(MIKELS, "", vectors / np.linalg.norm(vectors, axis=1, keepdims=True), model.mapper.mean.numpy())
    seen, new = images(12), images(50, 1)
    asked = prior.probs(seen)
    other = adapted(model, seen, {"mikels8": asked}, [MIKELS], {"mikels8": prior})
    np.testing.assert_allclose(predict(other, new).probs["mikels8"], prior.probs(new), atol=2e-3)
    assert other.config.adaptation.zero_shot == ("mikels8",)


def test_a_second_adaptation_adds_to_the_first(model):
    first, second, new = images(60), images(60, 1), images(40, 2)
    once = adapted(model, first, {"mikels8": labels_of(MIKELS, np.where(first[:, 0] > 0, 7, 2))}, [MIKELS])
    targets = {"polarity2": by_first_coordinate(POLARITY, second), "mikels8": predict(once, second).probs["mikels8"]}
    twice = adapted(once, second, targets, [POLARITY, MIKELS])
    assert twice.config.adaptation.schemes == ("mikels8", "polarity2")
    assert twice.config.few_shot == ("mikels8",)
    before, after = predict(once, new), predict(twice, new)
    np.testing.assert_allclose(after.probs["mikels8"], before.probs["mikels8"], atol=5e-3)
    truth = by_first_coordinate(POLARITY, new).argmax(1)
    assert np.log(after.probs["polarity2"][np.arange(40), truth]).mean() > np.log(before.probs["polarity2"][np.arange(40), truth]).mean()


def test_an_adapted_model_is_read_back_as_it_was_written(model, tmp_path):
    seen, new = images(30), images(20, 1)
    targets = {"polarity2": by_first_coordinate(POLARITY, seen), "mikels8": labels_of(MIKELS, seen[:, 0] > 0)}
    other = adapted(model, seen, targets, [POLARITY, MIKELS])
    other.save_pretrained(tmp_path / "mine", "# mine\n")
    again = UGRIE.from_pretrained(tmp_path / "mine")
    assert again.config == other.config
    for name, probs in predict(other, new).probs.items():
        np.testing.assert_array_equal(predict(again, new).probs[name], probs)
