"""Zero-shot answers are those of open_clip's own procedure, and follow from the checkpoint, the scheme and the image alone."""

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ugrie.libraries import open_clip
from ugrie.model import checkpoint, zero_shot
from ugrie.model.zero_shot import TEMPERATURES, ZeroShot
from ugrie.schemes.prompts import TEMPLATES, prompts_of
from ugrie.schemes.scheme import Label, SchemeError, load_scheme
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder

NO_MEAN = np.zeros(8, np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def sky(make_scheme):
    return make_scheme("sky", "the sky is", "clear", "grey", "stormy")


@pytest.fixture(scope="module")
def mood(make_scheme):
    labels = (Label(name="very grim", value=1.0), Label(name="dull", value=2.0), Label(name="bright", value=5.0))
    return make_scheme("mood", "the mood is", kind="ordinal", range=(1.0, 5.0), labels=labels)


def answer(clip, *schemes, mean=NO_MEAN, tower="t"):
    return zero_shot.answer(TowerConfig(**clip.tower), tower, mean, schemes, lambda: clip.weights)


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("family", ["vit", "resnet", "timm", "siglip"])
def test_scores_are_those_of_open_clips_zero_shot_classifier(make_clip, family, sky, pixels):
    made = make_clip(family)
    clip = open_clip.create_model(made.tower["name"], pretrained=made.weights).eval()
    crops = np.stack([pixels(32, 32, seed) for seed in range(5)])
    templates = [lambda word, t=template: t.format(clause=sky.clause, word=word) for template in TEMPLATES]
    tokenizer = open_clip.get_tokenizer(made.tower["name"])
    with torch.inference_mode():
        classifier = open_clip.build_zero_shot_classifier(clip, tokenizer, sky.label_names, templates)
        images = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        expected = 100 * clip.encode_image(images, normalize=True) @ classifier
        embeddings = Encoder.pretrained(TowerConfig(**made.tower), made.weights)(torch.from_numpy(crops)).numpy()
    ours = answer(made, sky)["sky"]
    assert expected.std(1).min() > 0.1
    np.testing.assert_allclose(ours.scores(embeddings), expected.numpy(), atol=1e-3)
    np.testing.assert_allclose(ours.probs(embeddings), (expected / TEMPERATURES["categorical"]).softmax(1).numpy(), atol=1e-4)


def test_the_names_and_synonyms_of_a_label_count_alike(make_clip, make_scheme):
    made = make_clip("vit")
    labels = (Label(name="clear", synonyms=("bright", "Clear")), Label(name="grey"))
    (vectors,) = (each.vectors for each in answer(made, make_scheme("sky", "the sky is", labels=labels)).values())
    single = answer(made, make_scheme("sky", "the sky is", "clear", "bright", "grey"))["sky"].vectors
    np.testing.assert_allclose(vectors, [unit(single[0] + single[1]), single[2]], atol=1e-5)


def test_all_labels_are_equally_likely_on_average_over_the_images_of_the_mean(make_clip, sky, embeddings):
    plain = answer(make_clip("vit"), sky)["sky"].scores(embeddings)
    corrected = answer(make_clip("vit"), sky, mean=unit(embeddings).mean(0))["sky"].scores(embeddings)
    assert np.abs(plain.mean(0)).max() > 1
    np.testing.assert_allclose(corrected, plain - plain.mean(0), atol=1e-3)


def test_an_answer_depends_on_nothing_but_its_image(make_clip, sky, mood, embeddings):
    for each in answer(make_clip("vit"), sky, mood, mean=unit(embeddings).mean(0)).values():
        together = each.probs(embeddings)
        assert together.dtype == np.float32
        np.testing.assert_allclose(together.sum(1), 1, atol=1e-6)
        for i, one in enumerate(embeddings):
            np.testing.assert_allclose(each.probs(20 * one[None])[0], together[i], atol=1e-5)


def test_an_ordinal_scheme_is_answered_by_the_axis_between_the_prompts_of_its_ends(make_clip, mood, make_scheme, embeddings):
    made = make_clip("vit")
    ours = answer(made, mood)["mood"]
    ends = answer(made, make_scheme("mood", "the mood is", "very grim", "bright"))["mood"]
    np.testing.assert_allclose(ours.vectors, ends.vectors, atol=1e-6)
    places = ends.probs(embeddings)[:, 1]
    assert ours.probs(embeddings).shape == (9, 3)
    assert np.all(np.diff((ours.probs(embeddings) @ mood.values)[places.argsort()]) > 0)


def test_every_level_is_the_most_likely_one_somewhere_on_the_axis(mood):
    ends = ZeroShot(mood, "d", np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    angles = np.linspace(0, np.pi / 2, 200)
    probs = ends.probs(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    assert sorted(set(probs.argmax(1))) == [0, 1, 2]
    values = probs @ mood.values
    assert np.all(np.diff(values) > -1e-6)
    assert values[0] < 1.6
    assert values[-1] > 4.4


def test_two_levels_are_no_surer_than_two_labels(make_scheme, embeddings):
    """An image's place between the ends is about the probability of the upper level."""
    labels = (Label(name="grim", value=0.0), Label(name="bright", value=1.0))
    two = make_scheme("two", "the mood is", kind="ordinal", range=(0.0, 1.0), labels=labels)
    ends = ZeroShot(two, "d", np.eye(2, 8, dtype=np.float32), np.zeros(8, np.float32))
    scores = ends.scores(embeddings) / TEMPERATURES["ordinal"]
    place = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    np.testing.assert_allclose(ends.probs(embeddings)[:, 1], place, atol=0.3)
    assert np.all((ends.probs(embeddings)[:, 1] > 0.5) == (place > 0.5))
    assert ends.probs(embeddings).max() < 0.9


def test_an_average_image_is_in_the_middle_of_an_ordinal_scheme(embeddings):
    valence = load_scheme("valence")
    answers = ZeroShot(valence, "d", np.eye(2, 8, dtype=np.float32), unit(embeddings[0]))
    probs = answers.probs(embeddings[:1])
    assert probs @ np.asarray(valence.values) == pytest.approx(5)
    assert probs.argmax() == 4


def test_prompts_are_embedded_once_and_the_clip_is_loaded_once_and_freed(make_clip, sky, mood, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    made, loaded = make_clip("vit"), []
    create = open_clip.create_model

    def watched(*args, **kwargs):
        clip = create(*args, **kwargs)
        loaded.append(weakref.ref(clip))
        return clip

    monkeypatch.setattr(open_clip, "create_model", watched)
    first = answer(made, sky, mood)
    gc.collect()
    assert [each() for each in loaded] == [None]
    assert caplog.text == ""
    again = zero_shot.answer(TowerConfig(**made.tower), "t", NO_MEAN, [mood, sky], lambda: pytest.fail("the weights are not needed"))
    assert list(again) == ["mood", "sky"]
    for name, each in again.items():
        assert each == first[name]
        assert np.array_equal(each.vectors, first[name].vectors)
    answer(made, sky, tower="another")
    assert len(loaded) == 2


@pytest.mark.parametrize("content", [b"", b"no numbers", "nan", "shape"])
def test_cached_prompts_that_are_broken_are_named_with_the_remedy(make_clip, sky, cache, content):
    answer(make_clip("vit"), sky)
    (file,) = (cache / "text").glob("*.npy")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, np.full((3, 8) if content == "nan" else (2, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match=rf"{file} holds no embedded prompts: remove it, and check the file of the CLIP's weights"):
        answer(make_clip("vit"), sky)


def test_a_file_of_the_image_tower_alone_is_refused_with_the_remedy(make_clip, sky, tmp_path):
    made = make_clip("vit")
    weights = {name: tensor for name, tensor in load_file(made.weights).items() if name.startswith("visual.")}
    save_file(weights, tmp_path / "visual.safetensors")
    with pytest.raises(ValueError, match=r"give the file of the whole CLIP as tower_weights$") as error:
        zero_shot.answer(TowerConfig(**made.tower), "t", NO_MEAN, [sky], lambda: str(tmp_path / "visual.safetensors"))
    assert "\n" not in str(error.value)


def test_a_synonym_that_is_the_name_in_other_letters_is_no_other_word(make_scheme):
    scheme = make_scheme("sky", "the sky is", labels=(Label(name="clear", synonyms=("Clear", "bright")), Label(name="grey")))
    assert [prompt[0] for prompt in prompts_of(scheme)[0]] == ["clear.", "bright."]


def test_the_digest_changes_with_whatever_changes_the_answers(make_clip, sky, mood):
    made = make_clip("vit")

    def digest(scheme, tower="t"):
        return answer(made, scheme, tower=tower)[scheme.name].digest

    same = sky.model_copy(update={"title": "The sky over us", "source": "another"})
    assert digest(sky) == digest(same)
    other_words = sky.model_copy(update={"labels": (Label(name="clear", synonyms=("bright",)), *sky.labels[1:])})
    reordered = sky.model_copy(update={"labels": sky.labels[::-1]})
    other_clause = sky.model_copy(update={"clause": "the sky looks"})
    stretched = mood.model_copy(update={"labels": (mood.labels[0], mood.labels[1].model_copy(update={"value": 3.0}), mood.labels[2])})
    digests = [digest(each) for each in (sky, other_words, reordered, other_clause, mood, stretched)] + [digest(sky, "another tower")]
    assert len(set(digests)) == len(digests)


def test_a_file_that_holds_no_such_clip_is_named(make_clip, sky, tmp_path):
    broken = tmp_path / "clip.safetensors"
    broken.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=f"the text tower of ugrie-test-vit-8 can't be loaded from {broken}: "):
        zero_shot.answer(TowerConfig(**make_clip("vit").tower), "t", NO_MEAN, [sky], lambda: str(broken))


# In the model


@pytest.fixture
def named(make_clip, make_model, nested):
    """A model on a CLIP that is known by name."""
    model = make_model(nested, TowerConfig(**make_clip("vit").tower))
    model.tower_weights = make_clip("vit").weights
    return model


@pytest.fixture
def sky_file(tmp_path):
    labels = "\n".join(f"[[labels]]\nname = '{name}'\nsynonyms = []" for name in ("clear", "grey", "stormy"))
    text = "name = 'sky'\ntitle = 'Sky'\nkind = 'categorical'\nclause = 'the sky is'\nsource = 'a test'\n"
    (tmp_path / "sky.toml").write_text(f"{text}{labels}\n")
    return str(tmp_path / "sky.toml")


def test_schemes_of_both_kinds_are_stated_in_the_order_that_they_are_asked_for(named, sky_file, embeddings, make_clip, sky):
    mixed = named.predict(torch.from_numpy(embeddings), ["verdict", sky_file, "moment"])
    trained = named.predict(torch.from_numpy(embeddings), ["verdict", "moment"])
    for name in ("verdict", "moment"):
        assert np.array_equal(mixed.probs[name], trained.probs[name])
    tower = checkpoint.named_tower_digest(named.config, named.tower_weights)
    (expected,) = answer(make_clip("vit"), sky, mean=named.mapper.mean.numpy(), tower=tower).values()
    assert np.array_equal(mixed.probs["sky"], expected.probs(embeddings))
    for i, annotation in enumerate(mixed.annotations()):
        assert list(annotation.readings) == ["verdict", "sky", "moment"]
        assert annotation["sky"].label == sky.label_names[expected.probs(embeddings)[i].argmax()]
        stated = [
            f"{clause} {annotation[name].label}"
            for clause, name in zip(("the verdict of most people is", "the sky is", "this is"), annotation.readings, strict=True)
        ]
        assert annotation.sentence == f"Overall, {', '.join(stated)}."


def test_bundled_schemes_alone_need_no_bart(named, embeddings, monkeypatch):
    monkeypatch.setattr(named, "_fill", None)
    (first, *_) = named.annotate_embeddings(embeddings, ["valence", "polarity3"])
    assert set(first["polarity3"].probs) == {"negative", "neutral", "positive"}
    assert 1 < first["valence"].value < 9


def test_the_text_tower_is_loaded_once_for_a_model(named, embeddings, monkeypatch):
    named.annotate_embeddings(embeddings, ["mikels8", "ekman6"])
    monkeypatch.setattr(zero_shot, "answer", None)
    assert len(named.annotate_embeddings(embeddings, ["ekman6", "mikels8"])) == len(embeddings)


def test_bart_does_not_write_what_it_was_not_trained_for(named, embeddings):
    with pytest.raises(SchemeError, match=r"BART can't write mikels8, for which tiny was not trained: leave decode at slots"):
        named.annotate_embeddings(embeddings, ["moment", "mikels8"], decode="generate")


# On real embeddings


def test_the_axis_between_two_real_texts_tells_the_valence_of_images(shared):
    """Two texts of OpenAI's CLIP ViT-L/14, tuned on ratings of morality: the only ones that can be had without its weights."""
    texts, images = shared / "text_axis" / "q16_l14.npz", shared / "emotion6" / "train.npz"
    if not (texts.is_file() and images.is_file()):
        pytest.skip("text_axis/q16_l14.npz or emotion6/train.npz is not in ../shared/data")
    with np.load(texts) as axis, np.load(images) as data:
        assert axis["names"].tolist() == ["benign", "inappropriate"]
        vectors = unit(axis["text"].astype(np.float32))[::-1]
        embeddings, valence = data["embedding"].astype(np.float32), data["valence"]
    scheme = load_scheme("valence")
    mean = checkpoint.mean_embedding(checkpoint.find("ugrie-l14"))
    ordinal = ZeroShot(scheme, "d", vectors, mean)
    scores, values = ordinal.scores(embeddings), ordinal.probs(embeddings) @ np.asarray(scheme.values)
    assert np.corrcoef(scores[:, 1] - scores[:, 0], valence)[0, 1] >= 0.83
    assert np.corrcoef(values, valence)[0, 1] >= 0.83
    assert np.polyfit(values, valence, 1)[0] >= 0.95, "its values are further apart than the ratings"
    probs = ZeroShot(load_scheme("polarity2"), "d", vectors, mean).probs(embeddings)
    assert probs.max(1).mean() < (probs.argmax(1) == (valence >= 5)).mean(), "it is overconfident"
