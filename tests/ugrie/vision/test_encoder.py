"""The image tower gets the same pixels as in open_clip's pipeline, and an error about its weights states the remedy."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ugrie.libraries import open_clip
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder
from ugrie.vision.preprocess import crop

NAMED = {"embedding_dim": 8, "crop_size": 32, "mean": (0.5, 0.5, 0.5), "deviation": (0.5, 0.5, 0.5), "name": "ugrie-test-tower"}


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> TowerConfig:
    """A tower of a few kB that open_clip knows by name, without bundled weights."""
    path = tmp_path_factory.mktemp("tower") / "ugrie-test-tower.json"
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return TowerConfig(**NAMED, pretrained="nowhere")


def test_pixels_reach_the_tower_as_open_clips_pipeline_gives_them(tower, pixels):
    encoder = Encoder.bundled(tower)
    images = [Image.fromarray(pixels(*size)) for size in [(40, 33), (32, 64), (100, 90)]]
    theirs = open_clip.transform.image_transform(32, is_train=False, mean=tower.mean, std=tower.deviation)
    with torch.inference_mode():
        ours = encoder(torch.from_numpy(np.stack([crop(image, 32) for image in images])))
        expected = encoder.tower(torch.stack([theirs(image) for image in images]))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (ours.shape, ours.dtype) == ((3, 8), torch.float32)
    assert (ours[0] - ours[1]).abs().max() > 1e-3


def test_a_described_tower_has_the_width_it_is_said_to_have(tower, pixels):
    wider = tower.model_copy(update={"embedding_dim": 12})
    with torch.inference_mode():
        assert Encoder.bundled(wider)(torch.from_numpy(pixels(32, 32)[None])).shape == (1, 12)


def test_a_stream_of_batches_is_embedded_in_its_order(tower, pixels):
    encoder = Encoder.bundled(tower)
    batches = [np.stack([pixels(32, 32, 10 * i + j) for j in range(count)]) for i, count in enumerate((3, 3, 1))]
    with torch.inference_mode():
        given = list(encoder.stream(batch for batch in batches))
        assert [len(embeddings) for embeddings in given] == [3, 3, 1]
        for batch, embeddings in zip(batches, given, strict=True):
            torch.testing.assert_close(embeddings, encoder(torch.from_numpy(batch)))
    assert list(encoder.stream([])) == []


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_batch_goes_through_in_parts_on_cores_of_their_own(tower, pixels, monkeypatch, threads, batch_size):
    encoder = Encoder.bundled(tower)
    encoder.batch_size = batch_size
    seen: list[tuple[int, int]] = []
    embed = encoder.embed

    def watched(crops: torch.Tensor) -> torch.Tensor:
        seen.append((len(crops), torch.get_num_threads()))
        return embed(crops)

    monkeypatch.setattr(encoder, "embed", watched)
    batch = np.stack([pixels(32, 32, i) for i in range(7)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            (embeddings,) = encoder.stream([batch])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert {cores for _, cores in seen} == {1}
    assert sum(count for count, _ in seen) == 7
    assert max(count for count, _ in seen) <= batch_size
    assert len(seen) == min(7, threads * -(-7 // (batch_size * threads)))
    with torch.inference_mode():
        torch.testing.assert_close(embeddings, embed(torch.from_numpy(batch)))


def test_an_error_in_a_part_is_the_streams(tower, pixels, monkeypatch):
    encoder = Encoder.bundled(tower)
    monkeypatch.setattr(encoder, "embed", lambda crops: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(encoder.stream([pixels(32, 32)[None]]))


@pytest.mark.parametrize(("precision", "tolerance"), [("auto", 1e-6), ("fp32", 1e-6), ("fp16", 0.01), ("bf16", 0.1)])
def test_a_tower_says_the_same_in_every_precision(tower, pixels, precision, tolerance):
    torch.manual_seed(6)
    encoder = Encoder.bundled(tower)
    crops = torch.from_numpy(pixels(32, 32)[None])
    with torch.inference_mode():
        exact = encoder(crops)
        prepared = encoder.prepare("cpu", precision)(crops)
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, exact, atol=tolerance, rtol=tolerance)


def test_the_normalisation_is_no_part_of_the_weights(tower):
    assert all(name.startswith("tower.") for name in Encoder.bundled(tower).state_dict())


def test_a_named_tower_takes_its_weights_from_a_file(named, tmp_path, pixels):
    clip = open_clip.create_model("ugrie-test-tower").eval()
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    encoder = Encoder.pretrained(named, str(tmp_path / "clip.pt"))
    crops = torch.from_numpy(pixels(32, 32)[None])
    with torch.inference_mode():
        expected = clip.visual((crops.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        torch.testing.assert_close(encoder(crops), expected, atol=1e-5, rtol=1e-5)
    assert not encoder.tower.training


def test_a_named_tower_states_the_weights_that_it_has_and_takes_no_others(named, tmp_path):
    file = tmp_path / "clip.pt"
    torch.save(open_clip.create_model("ugrie-test-tower").state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    config = Encoder.pretrained(named, str(file)).config
    assert config == named.model_copy(update={"sha256": digest})
    Encoder.pretrained(config, str(file))
    torch.save(open_clip.create_model("ugrie-test-tower").state_dict(), file)
    with pytest.raises(
        ValueError, match=f"clip.pt does not hold the weights of ugrie-test-tower that the model was trained with: .* {digest}"
    ):
        Encoder.pretrained(config, str(file))


def test_a_download_of_other_weights_than_those_stated_is_refused(named, tmp_path, monkeypatch):
    file = tmp_path / "clip.pt"
    torch.save(open_clip.create_model("ugrie-test-tower").state_dict(), file)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda weights: str(file))
    assert Encoder.pretrained(named).config.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="does not hold the weights of ugrie-test-tower that the model was trained with"):
        Encoder.pretrained(named.model_copy(update={"sha256": "0" * 64}))


def test_weights_that_are_not_there_are_named(named, tmp_path):
    missing = str(tmp_path / "clip.pt")
    with pytest.raises(FileNotFoundError, match=f"no file of CLIP weights at {missing}"):
        Encoder.pretrained(named, missing)


def test_a_file_that_holds_no_such_weights_is_named(named, tmp_path):
    path = tmp_path / "clip.pt"
    path.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=f"{path} does not hold the weights of ugrie-test-tower"):
        Encoder.pretrained(named, str(path))
    torch.save({"visual.proj": torch.zeros(3, 3)}, path)
    with pytest.raises(ValueError, match=f"{path} does not hold the weights of ugrie-test-tower"):
        Encoder.pretrained(named, str(path))


def test_weights_that_cannot_be_fetched_leave_two_ways_out(named):
    with pytest.raises(
        OSError, match=r"ugrie-test-tower \(nowhere\) could not be fetched[\s\S]*--tower-weights FILE[\s\S]*annotate_embeddings"
    ):
        Encoder.pretrained(named)
