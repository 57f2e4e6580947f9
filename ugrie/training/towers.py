"""The image tower that a recipe names: its configuration, which needs no weights, and the tower itself."""

from ugrie.libraries import open_clip
from ugrie.text import did_you_mean
from ugrie.training.recipe import RecipeError, Tower
from ugrie.vision import lite2
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder


def tower_config(tower: str | Tower) -> TowerConfig:
    """Return embedding dimension, crop size and normalisation, as open_clip states them for the weights.

    Raises RecipeError for a model or weights that open_clip does not know, and for weights of another model.
    """
    if isinstance(tower, str):
        return lite2.CONFIG
    known = open_clip.list_models()
    if tower.name not in known:
        raise RecipeError(f"tower.name: open_clip has no model '{tower.name}'{did_you_mean(tower.name, known)}")
    tags = open_clip.list_pretrained_tags_by_model(tower.name)
    if tower.pretrained not in tags:
        has = f"it has {', '.join(tags)}" if tags else "it has none"
        raise RecipeError(
            f"tower.pretrained: open_clip has no weights '{tower.pretrained}' of {tower.name}{did_you_mean(tower.pretrained, tags)}; {has}"
        )
    model, weights = open_clip.get_model_config(tower.name), open_clip.get_pretrained_cfg(tower.name, tower.pretrained)
    if weights.get("quick_gelu", False) != model.get("quick_gelu", False):
        other = tower.name.removesuffix("-quickgelu") if model.get("quick_gelu") else f"{tower.name}-quickgelu"
        raise RecipeError(
            f"tower.name: the weights '{tower.pretrained}' are those of {other}: with {tower.name} the embeddings would be wrong; "
            f"name {other}"
        )
    return TowerConfig(
        embedding_dim=model["embed_dim"],
        crop_size=model["vision_cfg"].get("image_size", 224),
        mean=weights["mean"],
        deviation=weights["std"],
        name=tower.name,
        pretrained=tower.pretrained,
    )


def load_tower(config: TowerConfig, weights: str | None) -> Encoder:
    """Return the tower with its weights: bundled (lite2), from the file `weights`, or fetched by open_clip.

    Raises RecipeError if the weights can't be read or fetched.
    """
    if config.name is None:
        return lite2.lite2()
    try:
        return Encoder.pretrained(config, weights)
    except (FileNotFoundError, ValueError) as error:
        raise RecipeError(f"tower: {error}") from error
    except OSError as error:
        raise RecipeError(
            f"tower: the weights of {config.name} ({config.pretrained}), which embed images, could not be fetched: {error.__cause__}; "
            "give a file of them as --tower-weights, or train on embeddings (.npz), which need none"
        ) from error
