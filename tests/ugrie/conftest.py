"""Fixtures of the model's tests: schemes whose labels are prefixes of others, tokenizers that split them, models of a few kB."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ugrie.data.labelled import Labelled
from ugrie.libraries import BartConfig, BartForConditionalGeneration
from ugrie.model.checkpoint import Config, MapperConfig
from ugrie.model.model import UGRIE
from ugrie.model.tokenizer import SPECIAL, UNKNOWN, phrase_tokenizer
from ugrie.model.trie import Slot, compile_template
from ugrie.schemes.scheme import Label, Scheme, load_scheme
from ugrie.schemes.template import Template
from ugrie.training.recipe import Bart, Recipe
from ugrie.vision.config import TowerConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
EMBEDDING_DIM = 8
VISION = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The labelled data beside the checkout, which the repository may not contain."""
    if not SHARED.is_dir():
        pytest.skip("there are no data sets in ../shared/data")
    return SHARED


# Schemes and tokenizers


def categorical(name: str, clause: str, *labels: str, **more: Any) -> Scheme:
    fields = {"name": name, "title": name, "kind": "categorical", "clause": clause, "source": "a test"}
    return Scheme(**fields | {"labels": tuple(Label(name=label) for label in labels)} | more)


def ordinal(name: str, clause: str, *labels: str) -> Scheme:
    valued = tuple(Label(name=label, value=float(i + 1)) for i, label in enumerate(labels))
    return categorical(name, clause, kind="ordinal", range=(1.0, float(len(labels))), labels=valued)


@pytest.fixture(scope="session")
def make_scheme() -> Callable[..., Scheme]:
    return categorical


@pytest.fixture(scope="session")
def nested() -> tuple[Scheme, ...]:
    """Labels of one to six words. Some are prefixes of others, some share a start or an end; liking's trie branches twice at one depth."""
    return (
        categorical("calmness", "the mood is", "calm", "calm and happy", "calm and happy and very still", "tense"),
        ordinal(
            "liking",
            "it feels",
            "very very unpleasant",
            "very unpleasant",
            "slightly unpleasant",
            "neutral",
            "slightly pleasant",
            "very pleasant",
            "very very pleasant",
        ),
        categorical("verdict", "the verdict of most people is", "good", "not good"),
        categorical("moment", "this is", "a", "a very", "a very happy", "a very happy day", "dull", "a very long day"),
    )


def words_tokenizer(schemes: Sequence[Scheme], normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """One token per word, each with the space before it."""
    template = Template(tuple(schemes))
    texts = [*template.literals, ".", *(f" {name}" for scheme in schemes for name in scheme.label_names)]
    texts += [f", {scheme.clause}" for scheme in schemes]
    split = pre_tokenizers.Split(Regex(r" ?\w+|[,.]"), behavior="isolated")
    words = [word for text in texts for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text) if normalizer else text)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def bpe_tokenizer(schemes: Sequence[Scheme]) -> Tokenizer:
    """Byte-level BPE like BART's, with so few merges that most words are several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [*Template(tuple(schemes)).literals, *(f" {name}" for scheme in schemes for name in scheme.label_names)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


TOKENIZERS = {"phrases": phrase_tokenizer, "words": words_tokenizer, "bpe": bpe_tokenizer}


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Callable[..., Tokenizer]]:
    """Functions that make tokenizers, by name."""
    return TOKENIZERS


# Models


SHAPE = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 128,
    "init_std": 0.6,
    "forced_eos_token_id": None,
}


def random_bart(vocabulary: int, seed: int = 0, **more: Any) -> BartForConditionalGeneration:
    """A tiny BART with no weight at its initial value, so that distributions are sharp and biases matter."""
    torch.manual_seed(seed)
    bart = BartForConditionalGeneration(BartConfig(**SHAPE | {"vocab_size": vocabulary} | more)).eval()
    with torch.no_grad():
        for name, weight in bart.named_parameters():
            if name.endswith("bias") or "layer_norm" in name or "layernorm" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
        bart.final_logits_bias.normal_()
    return bart


@pytest.fixture(scope="session")
def make_bart() -> Callable[..., BartForConditionalGeneration]:
    return random_bart


@dataclass(frozen=True)
class Language:
    """A tokenizer of the nested schemes and a BART with its vocabulary."""

    schemes: tuple[Scheme, ...]
    tokenizer: Tokenizer
    bart: BartForConditionalGeneration

    def slots(self, order: Sequence[int]) -> tuple[Slot, ...]:
        return compile_template(Template(tuple(self.schemes[i] for i in order)), self.tokenizer)

    @property
    def start(self) -> tuple[int, ...]:
        return (self.bart.config.decoder_start_token_id,)

    def encoded(self, images: int, seed: int = 0, length: int = 3) -> torch.Tensor:
        """Return random encoder output for some images."""
        return torch.randn(images, length, self.bart.config.d_model, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session", params=list(TOKENIZERS))
def language(request: pytest.FixtureRequest, nested: tuple[Scheme, ...]) -> Language:
    tokenizer = TOKENIZERS[request.param](nested)
    return Language(nested, tokenizer, random_bart(tokenizer.get_vocab_size()))


TOWER = TowerConfig(embedding_dim=EMBEDDING_DIM, crop_size=32, mean=(0.48, 0.46, 0.41), deviation=(0.27, 0.26, 0.28), vision_cfg=VISION)


@pytest.fixture(scope="session")
def tower() -> TowerConfig:
    """A tower of one layer with a `vision_cfg`: its weights are in the checkpoint."""
    return TOWER


def tiny_model(schemes: Sequence[Scheme], tower: TowerConfig = TOWER, tokenizer: Tokenizer | None = None) -> UGRIE:
    """A whole model with random weights, with its tower if that has a `vision_cfg`."""
    from ugrie.vision.encoder import Encoder

    tokenizer = tokenizer or phrase_tokenizer(schemes)
    bart = random_bart(tokenizer.get_vocab_size(), seed=1)
    config = Config(
        name="tiny",
        schemes=tuple(schemes),
        temperatures={schemes[0].name: 1.7},
        tower=tower,
        mapper=MapperConfig(components=4, landmarks=6, prefix_length=2, hidden=16, dropout=0.1),
        bart=SHAPE | {"vocab_size": tokenizer.get_vocab_size()},
    )
    model = UGRIE(config, tokenizer, bart)
    with torch.no_grad():
        for weight in model.mapper.parameters():
            weight.normal_()
        model.mapper.mean.normal_(0, 0.1)
        for buffer in (model.mapper.projection, model.mapper.landmarks, model.mapper.weights, model.mapper.bias):
            buffer.normal_()
    if tower.vision_cfg is not None:
        model.encoder = Encoder.bundled(tower)
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., UGRIE]:
    return tiny_model


@pytest.fixture(scope="session")
def model(nested: tuple[Scheme, ...]) -> UGRIE:
    """A tiny model; tests must not change it."""
    return tiny_model(nested)


@pytest.fixture(scope="session")
def saved(model: UGRIE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model's checkpoint; tests must not change it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model.save_pretrained(folder, "# tiny\n")
    return folder


@pytest.fixture(scope="session")
def embeddings() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(9, EMBEDDING_DIM)).astype(np.float32)


# Images


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def pixels() -> Callable[..., np.ndarray]:
    """Random pixels of every value: `pixels(width, height, seed, channels)`."""
    return noise


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A few lossless images of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    files = []
    for i, (width, height) in enumerate([(40, 50), (64, 33), (32, 32), (90, 20), (20, 31)]):
        files.append(folder / f"{i}.png")
        Image.fromarray(noise(width, height, seed=i)).save(files[-1])
    return files


# Training


def linear_signal(count: int, seed: int = 0) -> Labelled:
    """Images whose polarity is the sign of one coordinate, and whose valence is another."""
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(count, 12)).astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    level = np.clip(np.round(5 + 8 * unit[:, 1]), 1, 9).astype(int) - 1
    targets = {"polarity2": np.eye(2, dtype=np.float32)[(unit[:, 0] > 0).astype(int)], "valence": np.eye(9, dtype=np.float32)[level]}
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64), np.full(count, "photos"))


@pytest.fixture(scope="session")
def signal() -> Callable[..., Labelled]:
    """Labelled embeddings of 12 dimensions from which polarity2 and valence can be learned: `signal(count, seed)`."""
    return linear_signal


@pytest.fixture(scope="session")
def toy() -> Recipe:
    """A recipe that learns `signal` in a second or two."""
    return Recipe(
        name="toy",
        schemes=("polarity2", "valence"),
        tower="lite2",
        data=(),
        bart=Bart(d_model=32, layers=1, heads=2, dropout=0.0),
        components=12,
        prefix_length=2,
        hidden=32,
        dropout=0.0,
        batch_size=50,
        epochs=25,
        patience=25,
        learning_rate=3e-3,
        validation=0.2,
    )


@pytest.fixture(scope="session")
def toy_tower() -> TowerConfig:
    """The description of the tower that made `signal`; its weights don't exist."""
    return TowerConfig(embedding_dim=12, mean=(0.5,) * 3, deviation=(0.5,) * 3, name="none", pretrained="none")


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BART as published: weights, byte-level BPE (<mask> not added yet), settings for another task."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("pretrained") / "bart-nano"
    tokenizer = bpe_tokenizer([load_scheme(name) for name in ("polarity2", "valence")])
    bart = random_bart(tokenizer.get_vocab_size() + 1, seed=2, init_std=0.3, forced_eos_token_id=2, dropout=0.0)
    bart.generation_config.update(forced_bos_token_id=0, no_repeat_ngram_size=3, num_beams=4)
    bart.save_pretrained(folder)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder
