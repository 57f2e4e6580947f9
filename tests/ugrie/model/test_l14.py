"""The bundled ugrie-l14: it labels embeddings without its tower, and says what to do where pixels are asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ugrie import UGRIE
from ugrie.evaluation.evaluate import predict
from ugrie.schemes.scheme import load_scheme

EMOTION6 = Path(__file__).parents[4] / "shared" / "data" / "emotion6" / "train.npz"


@pytest.fixture(scope="module")
def l14() -> UGRIE:
    return UGRIE.from_pretrained("ugrie-l14")


def test_it_labels_embeddings_in_the_schemes_it_was_trained_for(l14):
    embeddings = np.random.default_rng(0).normal(size=(3, 768)).astype(np.float16)
    for annotation in l14.annotate_embeddings(embeddings):
        assert list(annotation.readings) == ["polarity2", "ekman6", "valence"]
        assert sum(annotation["ekman6"].probs.values()) == pytest.approx(1, abs=1e-5)
        assert annotation.sentence.startswith("Overall, the mood is ")


def test_the_norm_of_an_embedding_says_nothing(l14):
    embeddings = np.random.default_rng(0).normal(size=(2, 768)).astype(np.float32)
    one, other = (l14.annotate_embeddings(e)[0]["valence"].value for e in (embeddings, 20 * embeddings))
    assert one == pytest.approx(other, abs=1e-4)


def test_its_tower_is_openais_with_quick_gelu(l14):
    tower = l14.config.tower
    assert (tower.name, tower.pretrained, tower.embedding_dim, tower.crop_size) == ("ViT-L-14-quickgelu", "openai", 768, 224)


def test_a_file_of_weights_that_is_not_there_is_named_before_anything_is_loaded():
    model = UGRIE.from_pretrained("ugrie-l14", tower_weights="nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        model.annotate([Image.new("RGB", (300, 200))])


@pytest.mark.skipif(not EMOTION6.is_file(), reason="Emotion6's embeddings are not in shared/data beside the repository")
def test_it_says_of_the_images_it_learned_what_was_learned(l14):
    with np.load(EMOTION6) as data:
        said = predict(l14, data["embedding"].astype(np.float32))
        names = np.array(load_scheme("ekman6").label_names)
        assert (names[said.choices["ekman6"]] == data["ekman6"]).mean() > 0.8
        assert np.corrcoef(said.values(load_scheme("valence")), data["valence"])[0, 1] > 0.9
