"""The image tower: uint8 crops to embeddings, by open_clip.

A tower is named (`ViT-L-14-quickgelu`, `openai`: open_clip fetches its weights at first use, or reads them from a file), or
described (open_clip's own `vision_cfg`, which may name a timm trunk) with its weights in the checkpoint beside BART's.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ugrie.checkpoint import TowerConfig
from ugrie.libraries import open_clip


class Encoder(nn.Module):
    """uint8 crops [batch, size, size, 3] -> embeddings [batch, embedding_dim], float32. Normalises on the device."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: TowerConfig, tower: nn.Module):
        super().__init__()
        self.config = config
        self.tower = tower
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(config.deviation).view(3, 1, 1), persistent=False)

    @classmethod
    def bundled(cls, config: TowerConfig) -> "Encoder":
        """A tower built from its `vision_cfg`, weights still random."""
        # CLIP's constructor is open_clip's public way to a tower; the smallest text tower there is goes with it.
        text = {"width": 64, "heads": 1, "layers": 1, "vocab_size": 2, "context_length": 1}
        clip = open_clip.CLIP(embed_dim=config.embedding_dim, vision_cfg=config.vision_cfg, text_cfg=text)
        return cls(config, clip.visual.eval())

    @classmethod
    def pretrained(cls, config: TowerConfig, weights: str | None = None) -> "Encoder":
        """A tower by name, with its weights from `weights` (a local file) or by open_clip's own download."""
        assert config.name is not None
        if weights is not None and not Path(weights).is_file():
            raise FileNotFoundError(f"there is no file of CLIP weights at {weights}")
        try:
            clip = open_clip.create_model(config.name, pretrained=weights or config.pretrained)
        except Exception as error:
            if weights is not None:
                raise ValueError(f"{weights} does not hold the weights of {config.name}: {error}") from error
            raise OSError(
                f"the CLIP weights of {config.name} ({config.pretrained}) could not be fetched: {error}\n"
                "Fetch them where there is a network and give the file as tower_weights (--tower-weights FILE), "
                "or annotate embeddings you have with annotate_embeddings."
            ) from error
        return cls(config, clip.visual.eval())

    def forward(self, crops: Tensor) -> Tensor:
        pixels = crops.to(self.mean.device, non_blocking=True).permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.tower((pixels - self.mean) / self.deviation).float()
