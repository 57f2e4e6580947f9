"""Checkpoint: a folder with config.json, model.safetensors, tokenizer.json and MODEL_CARD.md.

A bundled checkpoint is known by name, any other by its folder. Weights are read as safetensors only: nothing in a checkpoint is
executed. Needs no torch, so that a job can check its model before it starts anything.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from safetensors import SafetensorError, deserialize, safe_open

from ugrie.errors import GivenError
from ugrie.schemes.scheme import Scheme, SchemeError, bundled_schemes, load_scheme
from ugrie.schemes.template import Template
from ugrie.text import did_you_mean
from ugrie.vision.config import Scale, TowerConfig, check_weights

FOLDER = Path(__file__).parents[1] / "checkpoints"
FORMAT = 3
FILES = ("config.json", "model.safetensors", "tokenizer.json")


class CheckpointError(GivenError):
    """An unknown, incomplete or unreadable checkpoint. The message names it and the remedy."""


class MapperConfig(BaseModel):
    """The shape of the mapper, see `ugrie.model.mapper.Mapper`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt
    landmarks: PositiveInt
    prefix_length: PositiveInt
    hidden: PositiveInt
    dropout: float = Field(default=0.0, ge=0, lt=1)


class AdaptationConfig(BaseModel):
    """What labels given after the training changed, see `ugrie.model.adaptation.Adaptation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str  # name@digest of the checkpoint that was adapted
    support: PositiveInt
    schemes: tuple[str, ...]  # those it corrects
    zero_shot: tuple[str, ...] = ()  # those of them that start from zero-shot answers


class BartShape(BaseModel):
    """What inference needs of a BART's config, with transformers' defaults; training and `generate` may state more in `Config.bart`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vocab_size: PositiveInt = 50265
    d_model: PositiveInt = 1024
    encoder_layers: PositiveInt = 12
    decoder_layers: PositiveInt = 12
    encoder_attention_heads: PositiveInt = 16
    decoder_attention_heads: PositiveInt = 16
    encoder_ffn_dim: PositiveInt = 4096
    decoder_ffn_dim: PositiveInt = 4096
    max_position_embeddings: PositiveInt = 1024
    activation_function: Literal["gelu", "gelu_new", "relu", "silu", "tanh"] = "gelu"
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    decoder_start_token_id: NonNegativeInt = 2

    @model_validator(mode="after")
    def _check(self) -> "BartShape":
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise ValueError(f"d_model = {self.d_model} can't be divided by {heads} attention heads")
        return self


class Format(BaseModel):
    """The one field that config.json has in every format. It is read first."""

    format: int


class Config(BaseModel):
    """config.json: everything but the weights. It contains the schemes in full, so that a checkpoint doesn't depend on bundled ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    schemes: tuple[Scheme, ...]
    temperatures: dict[str, Scale]
    regression_shares: dict[str, Annotated[FiniteFloat, Field(ge=0, le=1)]] = {}  # in each scheme's probabilities; the rest is BART's
    consistent: tuple[tuple[str, ...], ...] = ()  # groups of schemes whose labels may not contradict each other
    few_shot: tuple[str, ...] = ()  # schemes that BART was not trained for, which the adaptation answers
    tower: TowerConfig
    mapper: MapperConfig
    adaptation: AdaptationConfig | None = None
    bart: dict[str, Any]
    decoder_start: tuple[int, ...] | None = None  # tokens that start every sentence; default: the one of `bart`

    @field_validator("schemes")
    @classmethod
    def _check(cls, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
        return Template(schemes).schemes

    @model_validator(mode="after")
    def _check_adaptation(self) -> "Config":
        adapted = () if self.adaptation is None else self.adaptation.schemes
        for key, names, known in (
            ("adaptation.schemes", adapted, [scheme.name for scheme in self.schemes]),
            ("few_shot", self.few_shot, adapted),
            ("adaptation.zero_shot", () if self.adaptation is None else self.adaptation.zero_shot, self.few_shot),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{key}: {', '.join(unknown)} can't be answered")
        return self

    @field_validator("bart")
    @classmethod
    def _check_bart(cls, bart: dict[str, Any]) -> dict[str, Any]:
        BartShape.model_validate(bart)
        return bart

    def template(self, names: tuple[str, ...] | None = None) -> Template:
        """Return the template of the named schemes, in that order; default: all that it was trained for. Raises SchemeError."""
        return Template(self.schemes if names is None else tuple(map(self.scheme, names)))

    def scheme(self, name: str) -> Scheme:
        """Return a scheme by its name, or by the path of its file. Raises SchemeError.

        One that the checkpoint was not trained for can only be answered zero-shot, by the CLIP of its image tower. That must be one
        that open_clip knows by name: any other tower has no text tower.
        """
        known = {scheme.name: scheme for scheme in self.schemes}
        if name in known:
            return known[name]
        problem, knows = f"{self.name} was not trained for '{name}'", f"it knows {', '.join(known)}"
        if self.tower.name is None:
            raise SchemeError(
                f"{problem}{did_you_mean(name, known)}; {knows}; zero-shot answers to other schemes need a model whose image tower is "
                "a CLIP that open_clip knows by name, such as ugrie-l14"
            )
        if not name.endswith(".toml") and name not in bundled_schemes():
            suggestion = did_you_mean(name, {*known, *bundled_schemes()})
            raise SchemeError(
                f"{problem}{suggestion}; {knows}; zero-shot it answers the bundled schemes, and your own by the path of the .toml file"
            )
        scheme = load_scheme(name)
        if scheme.name in known:
            raise SchemeError(f"{name}: {self.name} was trained for {scheme.name}: give that name, or rename the scheme and its file")
        return scheme

    @property
    def written(self) -> tuple[Scheme, ...]:
        """The schemes that BART was trained to write."""
        return tuple(scheme for scheme in self.schemes if scheme.name not in self.few_shot)

    def was_trained_for(self, scheme: Scheme) -> bool:
        return any(scheme.name == known.name for known in self.schemes)


def bundled_checkpoints() -> tuple[str, ...]:
    """List the names of the checkpoints bundled with UGRIE."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def find(name_or_folder: str) -> Path:
    """Return the folder of a bundled checkpoint or a user's own. Raises CheckpointError if it is missing or incomplete."""
    folder = FOLDER / name_or_folder if name_or_folder in bundled_checkpoints() else Path(name_or_folder)
    if not _is_folder(folder):
        known = bundled_checkpoints()
        raise CheckpointError(
            f"there is no model '{name_or_folder}'{did_you_mean(name_or_folder, known)}; the bundled models are {', '.join(known)}; "
            "give a model of your own as its folder"
        )
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not a UGRIE checkpoint: it lacks {', '.join(missing)}")
    return folder


def _is_folder(path: Path) -> bool:
    """`Path.is_dir`, but false for impossible file names and for folders that the user may not read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_config(folder: Path) -> Config:
    """Read a checkpoint's config.json. Raises CheckpointError if it is invalid or of another format."""
    content = (folder / "config.json").read_bytes()
    try:
        stated = Format.model_validate_json(content).format
        if stated != FORMAT:
            remedy = "train it again" if stated < FORMAT else "upgrade UGRIE"
            raise CheckpointError(f"{folder} is a checkpoint of format {stated}; this UGRIE reads format {FORMAT}: {remedy}")
        return Config.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{folder / 'config.json'}: {'.'.join(map(str, first['loc']))}: {message}") from None


def digest(folder: Path) -> str:
    """Return the checkpoint's identity: the first twelve hexadecimal digits of the SHA-256 of its files."""
    state = hashlib.sha256()
    for file in FILES:
        state.update(hashlib.sha256((folder / file).read_bytes()).digest())
    return state.hexdigest()[:12]


def tower_digest(folder: Path, config: Config, weights: str | None = None) -> str:
    """Return the image tower's identity, twelve hexadecimal digits. Checkpoints with the same one can share embeddings.

    It covers the tower's description and its weights. `weights` is the file of those of a tower known by name; it may be left out where
    the description states its SHA-256. Raises CheckpointError where the weights can't be read, or are not those that it states.
    """
    if config.tower.name is not None:
        return named_tower_digest(config, weights)
    state = hashlib.sha256(config.tower.model_dump_json(exclude={"sha256"}).encode())
    try:
        tensors = sorted(deserialize((folder / "model.safetensors").read_bytes()))
    except SafetensorError as error:
        raise CheckpointError(f"{folder / 'model.safetensors'} can't be read: {error}") from None
    for name, tensor in tensors:
        if name.startswith("encoder."):
            state.update(f"{name} {tensor['dtype']} {tensor['shape']}".encode())
            state.update(tensor["data"])
    return state.hexdigest()[:12]


def named_tower_digest(config: Config, weights: str | None = None) -> str:
    """Return `tower_digest` of a tower known by name, which follows from its description and its weights alone."""
    state = hashlib.sha256(config.tower.model_dump_json(exclude={"sha256"}).encode())
    try:
        digest = config.tower.sha256 if weights is None else check_weights(config.tower, weights)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from None
    if digest is None:
        raise CheckpointError(f"{config.name} does not state the weights of its image tower: give them as tower_weights")
    state.update(bytes.fromhex(digest))
    return state.hexdigest()[:12]


def mean_embedding(folder: Path) -> np.ndarray:
    """Return the mean of the unit-length embeddings that the checkpoint was trained on: float32 [embedding_dim]. Raises CheckpointError."""
    try:
        with safe_open(folder / "model.safetensors", framework="np") as weights:
            return weights.get_tensor("mapper.mean").astype(np.float32)
    except (SafetensorError, TypeError) as error:
        raise CheckpointError(f"{folder / 'model.safetensors'} can't be read: {error}") from None
