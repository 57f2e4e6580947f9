"""The image tower as a checkpoint states it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

Scale = Annotated[FiniteFloat, Field(gt=0)]


class TowerConfig(BaseModel):
    """The image tower: `name` and `pretrained` as open_clip knows them, or `vision_cfg` where its weights are bundled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_dim: PositiveInt
    crop_size: PositiveInt = 224
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    deviation: tuple[Scale, Scale, Scale]
    name: str | None = None
    pretrained: str | None = None
    vision_cfg: dict[str, Any] | None = None
    # The last stages of a timm trunk that make the embedding (`ugrie.vision.stage_tower`).
    stages: PositiveInt | None = None

    @property
    def is_transformer(self) -> bool:
        """Whether the tower is a vision transformer, which int8 speeds up."""
        trunk = (self.vision_cfg or {}).get("timm_model_name")
        return "vit" in (trunk or self.name or "vit").lower()
