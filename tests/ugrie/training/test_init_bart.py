"""A new BART has the requested shape; a pretrained one is copied completely, and is saved in the checkpoint."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BartForConditionalGeneration, BartTokenizer, T5Config

from ugrie import UGRIE
from ugrie.model.checkpoint import read_config
from ugrie.schemes.scheme import load_scheme
from ugrie.training.init_bart import new_bart, pretrained_bart
from ugrie.training.recipe import Bart, RecipeError
from ugrie.training.train import new_model, train

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


@pytest.fixture
def folder(pretrained, tmp_path):
    """A pretrained BART to damage."""
    return shutil.copytree(pretrained, tmp_path / "mine")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_new_bart_has_the_shape_asked_for_and_the_templates_words():
    config, bart, tokenizer = new_bart(Bart(d_model=24, layers=3, heads=2), [POLARITY])
    assert (len(bart.model.encoder.layers), len(bart.model.decoder.layers), bart.config.d_model) == (3, 3, 24)
    assert bart.config.vocab_size == config["vocab_size"] == tokenizer.get_vocab_size()
    assert len(tokenizer.encode("Overall, the mood is positive.", add_special_tokens=False).ids) == 4


def test_a_pretrained_bart_says_what_its_authors_says(pretrained, signal):
    _, ours, tokenizer = pretrained_bart(str(pretrained))
    theirs = BartForConditionalGeneration.from_pretrained(pretrained).eval()
    ids = torch.tensor([tokenizer.encode("Overall, the mood is positive.").ids])
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(input_ids=ids).logits, theirs(input_ids=ids).logits)
    assert tokenizer.decode_batch(ids.tolist(), skip_special_tokens=True) == ["Overall, the mood is positive."]


def test_the_tokenizer_of_a_folder_with_vocabulary_and_merges_is_its_own(folder):
    """The form in which BARTs were published before tokenizer.json existed."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    _, _, tokenizer = pretrained_bart(str(folder))
    expected = BartTokenizer.from_pretrained(folder)
    for text in ("Overall, the mood is positive.", " very unpleasant", "naïve"):
        assert tokenizer.encode(text, add_special_tokens=False).ids == expected(text, add_special_tokens=False)["input_ids"]


def test_a_model_on_a_pretrained_bart_is_trained_saved_and_loaded(pretrained, signal, toy, toy_tower, tmp_path):
    recipe = toy.model_copy(update={"bart": str(pretrained), "epochs": 1})
    torch.manual_seed(0)
    model = new_model(recipe, [POLARITY, VALENCE], toy_tower)
    assert model.decoder_start == (2, 0), "as in BART's pretraining: </s> and <s>"
    assert max(len(label) for slot in model.slots(model.config.template()) for label in slot.labels) > 1
    before = model.bart.model.decoder.layers[0].fc1.weight.clone()
    data = signal(60)
    train(model, data, recipe)
    assert not torch.equal(model.bart.model.decoder.layers[0].fc1.weight, before)

    model.save_pretrained(tmp_path / "mine", "")
    again = UGRIE.from_pretrained(tmp_path / "mine")
    assert again.decoder_start == (2, 0)
    for decode in ("slots", "generate"):
        ours, theirs = (m.annotate_embeddings(data.embeddings[:8], decode=decode) for m in (model, again))
        assert [a.sentence for a in ours] == [a.sentence for a in theirs]
    probs = [m.predict(torch.from_numpy(data.embeddings)).probs["valence"] for m in (model, again)]
    np.testing.assert_allclose(*probs, atol=1e-6)


def test_a_config_written_before_decoders_had_two_starts_has_one(saved):
    assert "decoder_start" not in json.loads((saved / "config.json").read_text())
    assert read_config(saved).decoder_start is None
    assert UGRIE.from_pretrained(saved).decoder_start == (2,)


def test_free_generation_begins_as_training_did(make_model, nested, embeddings, monkeypatch):
    model = make_model(nested)
    model.config = model.config.model_copy(update={"decoder_start": (2, 0)})
    written = []
    generate = model.bart.generate
    monkeypatch.setattr(model.bart, "generate", lambda **given: written.append(generate(**given)) or written[-1])
    model.generate(torch.from_numpy(embeddings))
    assert written[0][:, :2].tolist() == [[2, 0]] * len(embeddings)


# Errors


def test_a_bart_that_is_neither_a_folder_nor_to_be_fetched_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match="bart: there is no folder facebook/bart-none, and no BART of that name could be fetched: "):
        pretrained_bart("facebook/bart-none")


def test_a_folder_of_another_model_is_named(tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=f"bart: {tmp_path} is a model of the kind 't5', not a BART"):
        pretrained_bart(str(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(RecipeError, match=f"no BART could be read from the folder {folder}: "):
        pretrained_bart(str(folder))


def test_weights_that_are_incomplete_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match=r"it lacks the weights model\.decoder\.layers\.0\.fc1\.weight"):
        pretrained_bart(str(folder))


def test_a_tokenizer_that_is_another_models_is_named(folder):
    edit(folder / "config.json", pad_token_id=3)
    with pytest.raises(
        RecipeError, match=r"its tokenizer has \d+ tokens and <s>, <pad>, </s> at \[0, 1, 2\], its config.json says \d+ and \[0, 3, 2\]"
    ):
        pretrained_bart(str(folder))


def test_padding_and_truncation_that_a_tokenizer_was_saved_with_are_not_used(folder):
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(path))
    _, _, tokenizer = pretrained_bart(str(folder))
    text = "Overall, the mood is positive."
    assert (tokenizer.padding, tokenizer.truncation) == (None, None)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
