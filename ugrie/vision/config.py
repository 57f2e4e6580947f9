"""The description of an image tower in a checkpoint."""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator, model_validator

Scale = Annotated[FiniteFloat, Field(gt=0)]
PLAIN = re.compile(r"[\w.-]*")  # names of open_clip and timm; with a colon or a slash a name is a model hub's, a URL or a path


class TowerConfig(BaseModel):
    """An image tower: open_clip's `name` and `pretrained`, or a `vision_cfg` if the checkpoint holds its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_dim: PositiveInt
    crop_size: PositiveInt = 224
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    deviation: tuple[Scale, Scale, Scale]
    name: str | None = None
    pretrained: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # of the file of the weights known by `name` and `pretrained`
    vision_cfg: dict[str, Any] | None = None
    stages: PositiveInt | None = None  # number of a timm trunk's last stages that make the embedding (`ugrie.vision.stage_tower`)

    @field_validator("name", "pretrained", "vision_cfg")
    @classmethod
    def _check_sources(cls, value: Any) -> Any:
        """Refuse what would load a model, or its weights, from anywhere but the checkpoint and open_clip's own list."""
        for key, text in _strings(value):
            if not PLAIN.fullmatch(text):
                raise ValueError(f"'{key or text}' must be a plain name, not a model hub's, a URL or a path: bundle the tower's weights")
        for key, flag in (value if isinstance(value, dict) else {}).items():
            if key.startswith("hf_") or ("pretrained" in key and flag):
                raise ValueError(f"'{key}' asks for weights from a model hub: bundle the tower's weights")
        return value

    @model_validator(mode="after")
    def _check_stages(self) -> "TowerConfig":
        if self.stages is not None and not (self.vision_cfg or {}).get("timm_model_name"):
            raise ValueError("stages are those of a timm trunk, and vision_cfg has no timm_model_name")
        return self

    @property
    def is_transformer(self) -> bool:
        """True if the tower is a vision transformer, which int8 speeds up."""
        trunk = (self.vision_cfg or {}).get("timm_model_name")
        return "vit" in (trunk or self.name or "vit").lower()


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string within a JSON value, keys too, with the key that it is under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from [("", name), *_strings(inner, name)]
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner, key)


def check_weights(config: TowerConfig, file: str) -> str:
    """Return the SHA-256 of a file of weights. Raises ValueError where the tower's description states another."""
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if config.sha256 not in (None, digest):
        raise ValueError(
            f"{file} does not hold the weights of {config.name} that the model was trained with: its SHA-256 is not {config.sha256}"
        )
    return digest
