"""Embeddings: cached as long as images and tower are the same; broken images are named."""

import os
import re
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from ugrie.vision.embeddings import EmbeddingCache, embed
from ugrie.vision.encoder import Encoder
from ugrie.vision.preprocess import crop


@pytest.fixture(scope="module")
def encoder(tower) -> Encoder:
    torch.manual_seed(4)
    return Encoder.bundled(tower)


@pytest.fixture
def files(image_files, tmp_path):
    return [shutil.copy(file, tmp_path / file.name) for file in image_files]


def poison(folder) -> None:
    """Make cached embeddings recognisable."""
    for path in folder.glob("*.npz"):
        with np.load(path) as kept:
            arrays = dict(kept)
        np.savez(path, **arrays | {"embeddings": np.full_like(arrays["embeddings"], 42)})


@pytest.mark.parametrize("batch_size", [2, 64])
def test_embeddings_are_those_of_the_tower_in_the_files_order(encoder, files, tmp_path, batch_size):
    ours = EmbeddingCache(encoder, tmp_path / "cache", batch_size)(files)
    with torch.inference_mode():
        expected = [encoder(torch.from_numpy(np.stack([crop(Image.open(file), 32)])))[0].numpy() for file in files]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_same_files_are_embedded_once(encoder, files, tmp_path):
    EmbeddingCache(encoder, tmp_path / "cache")(files)
    poison(tmp_path / "cache")
    assert (EmbeddingCache(encoder, tmp_path / "cache")(files) == 42).all()


def test_a_write_that_fails_half_way_is_not_taken_for_embeddings(encoder, files, tmp_path, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(np, "savez", half)
        with pytest.raises(OSError, match="No space left"):
            EmbeddingCache(encoder, tmp_path)(files)
    assert EmbeddingCache(encoder, tmp_path)(files).shape == (len(files), encoder.config.embedding_dim)


@pytest.mark.parametrize("change", ["other order", "fewer", "touched", "other weights", "other normalisation"])
def test_anything_else_is_embedded_anew(encoder, tower, files, tmp_path, change):
    EmbeddingCache(encoder, tmp_path / "cache")(files)
    poison(tmp_path / "cache")
    if change == "other order":
        files = files[::-1]
    elif change == "fewer":
        files = files[1:]
    elif change == "touched":
        os.utime(files[0], ns=(1, 1))
    elif change == "other weights":
        torch.manual_seed(5)
        encoder = Encoder.bundled(tower)
    else:
        encoder = Encoder(tower.model_copy(update={"mean": (0.5, 0.5, 0.5)}), encoder.tower)
    assert not (EmbeddingCache(encoder, tmp_path / "cache")(files) == 42).any()


def test_bytes_are_embedded_as_their_files_and_known_by_their_content(encoder, files, tmp_path):
    cache = EmbeddingCache(encoder, tmp_path / "cache", batch_size=2)
    contents = [file.read_bytes() for file in files]
    np.testing.assert_array_equal(cache([files[0], *contents[1:]]), cache(files))
    cache(contents)
    poison(tmp_path / "cache")
    assert (cache([bytes(bytearray(content)) for content in contents]) == 42).all()
    assert not (cache([contents[1], contents[0], *contents[2:]]) == 42).any()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_row_of_an_image_that_cannot_be_decoded_is_nan_and_says_why(encoder, files, batch_size, as_bytes):
    expected = embed(encoder.stream, files, encoder.config).embeddings
    content = files[2].read_bytes()
    files[0].write_bytes(b"")
    files[2].write_bytes(content[: len(content) // 2])
    files[3].write_bytes(b"no image")
    images = [file.read_bytes() for file in files] if as_bytes else files
    embedded = embed(encoder.stream, images, encoder.config, batch_size)
    assert np.isnan(embedded.embeddings).any(1).tolist() == [True, False, True, True, False]
    np.testing.assert_allclose(embedded.embeddings[[1, 4]], expected[[1, 4]], atol=1e-5)
    assert list(embedded.broken) == [0, 2, 3]
    assert embedded.broken[0] == embedded.broken[3] == "no image of a format that Pillow reads"
    assert re.fullmatch("OSError: .*truncated.*", embedded.broken[2])


def test_what_is_broken_is_named_with_its_reason_also_when_it_was_kept(encoder, files, tmp_path, caplog):
    files[2].write_bytes(b"none")
    images = [*files, b"neither"]
    logged = []
    for _ in range(2):
        ours = EmbeddingCache(encoder, tmp_path / "cache")(images)
        assert np.isnan(ours).any(1).tolist() == [False, False, True, False, False, True]
        logged.append(list(caplog.messages))
        caplog.clear()
    assert logged[0] == [
        f"can't be decoded: {files[2]}: no image of a format that Pillow reads",
        "can't be decoded: image 5, given as bytes: no image of a format that Pillow reads",
    ]
    assert logged[1] == logged[0]


def test_where_every_image_is_broken_all_is_nan(encoder):
    embedded = embed(encoder.stream, [b"a", b"b", b"c"], encoder.config, batch_size=2)
    assert embedded.embeddings.shape == (3, encoder.config.embedding_dim)
    assert np.isnan(embedded.embeddings).all()
    assert list(embedded.broken) == [0, 1, 2]


def test_no_more_than_a_batch_of_crops_is_held(encoder, files):
    """A batch is embedded before the next one is decoded."""
    seen = []

    def encode(batches):
        for batch in batches:
            seen.append(("embedded", len(batch)))
            yield torch.zeros(len(batch), encoder.config.embedding_dim)

    class Watched(Sequence):
        def __len__(self):
            return len(files)

        def __getitem__(self, row):
            image = files[row]
            seen.append(("read", row))
            return image

    embed(encode, Watched(), encoder.config, batch_size=2)
    assert seen == [("read", 0), ("read", 1), ("embedded", 2), ("read", 2), ("read", 3), ("embedded", 2), ("read", 4), ("embedded", 1)]


def test_a_file_that_is_missing_raises_and_nothing_is_kept(encoder, files, tmp_path):
    files[2].unlink()
    with pytest.raises(FileNotFoundError, match=files[2].name):
        EmbeddingCache(encoder, tmp_path / "cache")(files)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_tower_in_training_is_put_to_rest(tower, files, tmp_path):
    encoder = Encoder.bundled(tower).train()
    EmbeddingCache(encoder, tmp_path / "cache")
    assert not encoder.tower.training
