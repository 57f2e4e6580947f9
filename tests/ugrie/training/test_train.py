"""Training learns a signal, keeps the best weights, and resumes after an interruption to the same result."""

import contextlib
import copy

import numpy as np
import pytest
import torch

from ugrie import UGRIE
from ugrie.data.labelled import Labelled
from ugrie.schemes.scheme import load_scheme
from ugrie.schemes.template import TemplateError
from ugrie.training import train as training
from ugrie.training.batches import split
from ugrie.training.calibration import validation_loss
from ugrie.training.kernel_ridge import landmarks_for
from ugrie.training.loss import sentence_loss
from ugrie.training.recipe import Recipe
from ugrie.training.state import EpochMetrics
from ugrie.training.train import TrainingError, kept_epoch, new_model, train

pytestmark = pytest.mark.slow

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


@pytest.fixture(scope="module")
def trained(signal, toy, toy_tower) -> tuple[UGRIE, list[EpochMetrics]]:
    torch.manual_seed(0)
    model = new_model(toy, [POLARITY, VALENCE], toy_tower)
    return model, train(model, signal(600), toy)


def test_a_linear_signal_is_learned(trained, signal):
    model, _ = trained
    fresh = signal(400, seed=9)
    predicted = model.predict(torch.from_numpy(fresh.embeddings))
    assert (predicted.choices["polarity2"] == fresh.targets["polarity2"].argmax(1)).mean() > 0.9
    wanted = fresh.targets["valence"] @ np.array(VALENCE.values)
    assert np.corrcoef(predicted.values(VALENCE), wanted)[0, 1] > 0.9


def test_what_was_learned_is_said_in_any_order_and_selection(trained, signal):
    model, _ = trained
    fresh = signal(400, seed=9)
    for names in (["valence", "polarity2"], ["polarity2"]):
        predicted = model.predict(torch.from_numpy(fresh.embeddings), names)
        assert (predicted.choices["polarity2"] == fresh.targets["polarity2"].argmax(1)).mean() > 0.85


def test_the_sentence_is_written_without_being_held_to_the_template(trained, signal):
    """Free generation: most sentences follow the template."""
    model, _ = trained
    embeddings = torch.from_numpy(signal(40, seed=9).embeddings)
    with torch.inference_mode():
        written = model.bart.generate(inputs_embeds=model.mapper(embeddings), max_new_tokens=12, do_sample=False, num_beams=1)
    template, good = model.config.template(), 0
    for sentence in model.tokenizer.decode_batch(written.tolist(), skip_special_tokens=True):
        with contextlib.suppress(TemplateError):
            good += bool(template.parse(sentence))
    assert good >= 32


def test_the_curve_tells_of_every_epoch_and_falls(trained, toy):
    _, curve = trained
    assert [point["epoch"] for point in curve] == list(range(len(curve)))
    assert 1 < len(curve) <= toy.epochs
    assert curve[-1]["training"] < 0.7 * curve[0]["training"]
    assert min(point["validation"] for point in curve) < 0.7 * curve[0]["validation"]


def test_the_weights_kept_are_those_of_the_best_epoch(trained, signal, toy):
    """By the loss of BART alone, whose epochs they are: the regression has its share afterwards."""
    model, curve = trained
    model = copy.copy(model)
    model.config = model.config.model_copy(update={"regression_shares": {}})
    draw = np.random.default_rng(toy.seed)
    data = signal(600)
    _, outside = split(data, toy.validation, draw)
    assert validation_loss(model, data.take(outside)) == pytest.approx(min(point["validation"] for point in curve), abs=1e-4)


def test_a_trained_model_is_calibrated_and_rests(trained):
    model, _ = trained
    assert set(model.config.temperatures) == {"polarity2", "valence"}
    assert not model.training


def test_training_stops_when_nothing_is_gained(toy, toy_tower):
    """Early stopping, on labels that are independent of the images."""
    draw = np.random.default_rng(2)
    noise = {"polarity2": np.eye(2, dtype=np.float32)[draw.integers(0, 2, 60)], "valence": np.zeros((60, 9), np.float32)}
    data = Labelled(
        draw.normal(size=(60, 12)).astype(np.float32), noise, np.arange(60).astype(str), np.ones(60, np.int64), np.full(60, "photos")
    )
    torch.manual_seed(0)
    recipe = toy.model_copy(update={"epochs": 60, "patience": 3, "learning_rate": 1e-2})
    model = new_model(recipe, [POLARITY, VALENCE], toy_tower)
    assert len(train(model, data, recipe)) < 60
    assert model.config.temperatures["valence"] == 1.0, "no image to fit it on"


def assert_same_weights(ours: UGRIE, theirs: UGRIE) -> None:
    left, right = ours.state_dict(), theirs.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def short(toy) -> Recipe:
    """Three epochs with every source of randomness: dropout, mixup, noise."""
    return toy.model_copy(update={"epochs": 3, "mixup": 0.4, "dropout": 0.2, "bart": toy.bart.model_copy(update={"dropout": 0.1})})


@pytest.fixture
def begin(short, toy_tower):
    """Makes a new model, with torch's generator always in the same state."""

    def make(seed: int = 7) -> UGRIE:
        torch.manual_seed(seed)
        return new_model(short, [POLARITY, VALENCE], toy_tower)

    return make


def test_the_same_seeds_train_the_same_model(short, begin, signal):
    models = [begin(), begin()]
    curves = []
    for model in models:
        torch.manual_seed(7)
        curves.append(train(model, signal(100), short))
    assert curves[0] == curves[1]
    assert_same_weights(*models)


@pytest.mark.parametrize("recipe_seed", [True, False])
def test_another_seed_trains_another_model(short, begin, signal, recipe_seed):
    one, other = begin(), begin(7 if recipe_seed else 8)
    train(one, signal(100), short)
    train(other, signal(100), short.model_copy(update={"seed": 1}) if recipe_seed else short)
    assert not torch.equal(one.mapper.layers[0].weight, other.mapper.layers[0].weight)


@pytest.fixture
def steps_taken(monkeypatch):
    """`steps_taken(limit)` is a list that grows by one each training step; the step after `limit` raises KeyboardInterrupt."""

    def count(limit: int = 1000) -> list[int]:
        taken: list[int] = []

        def step(*arguments):
            if len(taken) == limit:
                raise KeyboardInterrupt
            taken.append(len(taken))
            return sentence_loss(*arguments)

        monkeypatch.setattr(training, "sentence_loss", step)
        return taken

    return count


@pytest.mark.parametrize("steps", [1, 3, 5, 6])
def test_a_training_that_was_interrupted_ends_in_the_same_weights(short, begin, signal, tmp_path, steps_taken, steps):
    """An epoch has two steps."""
    undisturbed = begin()
    curve = train(undisturbed, signal(100), short)
    steps_taken(steps)
    with contextlib.suppress(KeyboardInterrupt):
        train(begin(), signal(100), short, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").is_file() == (steps > 1)
    model, taken = begin(), steps_taken()
    if steps > 1:
        torch.manual_seed(99)  # it is the state's generator that counts
    assert train(model, signal(100), short, tmp_path / "state.pt") == curve
    assert len(taken) == 6 - steps // 2 * 2, "whole epochs are not trained again"
    assert_same_weights(model, undisturbed)
    assert model.config == undisturbed.config


def test_a_training_that_stopped_early_is_not_trained_on(short, begin, signal, tmp_path, steps_taken):
    recipe = short.model_copy(update={"epochs": 40, "patience": 1, "learning_rate": 0.03})
    curve = train(begin(), signal(60), recipe, tmp_path / "state.pt")
    assert len(curve) < 40
    taken = steps_taken()
    assert train(begin(), signal(60), recipe, tmp_path / "state.pt") == curve
    assert not taken


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_no_number_ends_the_training(short, begin, signal):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch \d: a lower learning_rate may help"):
        train(begin(), signal(100), short.model_copy(update={"learning_rate": 1e30, "epochs": 20}))


def test_a_scheme_that_no_held_out_image_has_is_trained_and_not_calibrated(signal, toy, toy_tower):
    data = signal(20)
    _, outside = split(data, toy.validation, np.random.default_rng(toy.seed))
    data.targets["valence"][outside] = 0
    recipe = toy.model_copy(update={"epochs": 2})
    model = new_model(recipe, [POLARITY, VALENCE], toy_tower)
    curve = train(model, data, recipe)
    assert [np.isfinite(point["validation"]) for point in curve] == [True, True]
    assert model.config.temperatures["valence"] == 1.0


def test_with_nothing_held_out_all_epochs_are_trained_and_nothing_is_calibrated(signal, toy, toy_tower):
    torch.manual_seed(0)
    recipe = toy.model_copy(update={"validation": 0.0, "epochs": 3, "patience": 1})
    model = new_model(recipe, [POLARITY, VALENCE], toy_tower)
    curve = train(model, signal(100), recipe)
    assert [point["validation"] for point in curve] == [None] * 3
    assert model.config.temperatures == {}
    assert not model.training


@pytest.mark.parametrize("stated", [None, 30])
def test_landmarks_that_the_recipe_does_not_state_follow_from_the_images(signal, toy, toy_tower, tmp_path, stated):
    recipe = toy.model_copy(update={"landmarks": stated, "epochs": 1, "refit": True})
    model = new_model(recipe, [POLARITY, VALENCE], toy_tower)
    train(model, signal(100), recipe)
    expected = stated or landmarks_for(100)
    assert len(model.mapper.landmarks) == len(model.mapper.weights) == model.config.mapper.landmarks == expected
    assert 20 < model.mapper.landmarks.any(1).sum() <= min(expected, 100)
    model.save_pretrained(tmp_path, "")
    embeddings = torch.from_numpy(signal(20, seed=9).embeddings)
    loaded = UGRIE.from_pretrained(tmp_path)
    np.testing.assert_allclose(loaded.predict(embeddings).probs["valence"], model.predict(embeddings).probs["valence"], atol=1e-5)


def test_held_out_images_are_predicted_some_at_a_time(signal, toy, toy_tower, monkeypatch):
    """Their memory does not grow with their number."""
    sizes = []

    def noting(model, embeddings, template):
        sizes.append(len(embeddings))
        return fill(model, embeddings, template)

    fill = UGRIE._fill_portion
    monkeypatch.setattr(UGRIE, "_fill_portion", noting)
    curves = []
    for limit in (4096, 7):
        monkeypatch.setattr(training, "VALIDATED", limit)
        torch.manual_seed(0)
        recipe = toy.model_copy(update={"epochs": 1})
        curves.append(train(new_model(recipe, [POLARITY, VALENCE], toy_tower), signal(100), recipe))
    whole = max(sizes)
    assert set(sizes) == {whole, 7, whole % 7}
    assert curves[0][0]["validation"] == pytest.approx(curves[1][0]["validation"], abs=1e-5)


def test_where_no_epoch_is_chosen_the_last_is_kept(toy):
    curve: list[EpochMetrics] = [{"epoch": i, "training": 1.0, "validation": loss} for i, loss in enumerate((2.0, 1.0, 3.0))]
    assert kept_epoch(curve, toy) == 1
    assert kept_epoch(curve, toy.model_copy(update={"refit": True})) == 2
    assert kept_epoch(curve, toy.model_copy(update={"validation": 0.0})) == 2
    assert kept_epoch([], toy) == -1


def test_a_refit_sees_all_images_and_keeps_the_calibration(signal, toy, toy_tower):
    data, models, curves = signal(200), [], []
    for refit in (False, True):
        recipe = toy.model_copy(update={"refit": refit, "epochs": 6, "patience": 6})
        torch.manual_seed(0)
        models.append(new_model(recipe, [POLARITY, VALENCE], toy_tower))
        curves.append(train(models[-1], data, recipe))
    plain, again = models
    assert curves[0] == curves[1]
    assert plain.config.temperatures == again.config.temperatures
    unit = torch.nn.functional.normalize(torch.from_numpy(data.embeddings).double(), dim=-1)
    torch.testing.assert_close(again.mapper.mean, unit.mean(0).float())
    assert not torch.allclose(plain.mapper.mean, unit.mean(0).float(), atol=1e-6)
    predicted = [model.predict(torch.from_numpy(signal(200, seed=9).embeddings)) for model in models]
    assert 0 < np.abs(predicted[0].probs["polarity2"] - predicted[1].probs["polarity2"]).mean() < 0.2
