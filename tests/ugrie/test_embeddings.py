"""Embeddings of files are those of the tower, computed once for as long as files and tower are the same."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ugrie.embeddings import EmbeddingCache
from ugrie.encoder import Encoder
from ugrie.preprocess import crop


@pytest.fixture(scope="module")
def encoder(tower) -> Encoder:
    torch.manual_seed(4)
    return Encoder.bundled(tower)


@pytest.fixture
def files(image_files, tmp_path):
    return [shutil.copy(file, tmp_path / file.name) for file in image_files]


def poison(folder) -> None:
    """Makes what is kept recognisable."""
    for path in folder.glob("*.npy"):
        np.save(path, np.full_like(np.load(path), 42))


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


@pytest.mark.parametrize("change", ["other order", "fewer", "touched", "other tower"])
def test_anything_else_is_embedded_anew(encoder, tower, files, tmp_path, change):
    EmbeddingCache(encoder, tmp_path / "cache")(files)
    poison(tmp_path / "cache")
    if change == "other order":
        files = files[::-1]
    elif change == "fewer":
        files = files[1:]
    elif change == "touched":
        os.utime(files[0], ns=(1, 1))
    else:
        torch.manual_seed(5)
        encoder = Encoder.bundled(tower)
    assert not (EmbeddingCache(encoder, tmp_path / "cache")(files) == 42).any()


def test_bytes_are_embedded_as_their_files_and_known_by_their_content(encoder, files, tmp_path):
    cache = EmbeddingCache(encoder, tmp_path / "cache", batch_size=2)
    contents = [file.read_bytes() for file in files]
    np.testing.assert_array_equal(cache([files[0], *contents[1:]]), cache(files))
    cache(contents)
    poison(tmp_path / "cache")
    assert (cache([bytes(bytearray(content)) for content in contents]) == 42).all()
    assert not (cache([contents[1], contents[0], *contents[2:]]) == 42).any()


@pytest.mark.parametrize("broken", [b"no image", b"", "half a file"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_row_of_an_image_that_cannot_be_decoded_is_nan(encoder, files, tmp_path, broken, as_bytes):
    expected = EmbeddingCache(encoder, tmp_path / "cache", batch_size=2)(files)
    content = files[2].read_bytes()
    files[2].write_bytes(content[: len(content) // 2] if broken == "half a file" else broken)
    images = [file.read_bytes() for file in files] if as_bytes else files
    for _ in range(2):  # computed, then kept
        ours = EmbeddingCache(encoder, tmp_path / "cache", batch_size=2)(images)
        assert np.isnan(ours).any(1).tolist() == [row == 2 for row in range(len(files))]
        np.testing.assert_allclose(np.delete(ours, 2, 0), np.delete(expected, 2, 0), atol=1e-5)


def test_a_batch_without_one_image_is_nan(encoder, tmp_path):
    ours = EmbeddingCache(encoder, tmp_path / "cache", batch_size=2)([b"a", b"b", b"c"])
    assert ours.shape == (3, encoder.config.embedding_dim)
    assert np.isnan(ours).all()


def test_a_file_that_is_missing_raises_and_nothing_is_kept(encoder, files, tmp_path):
    files[2].unlink()
    with pytest.raises(FileNotFoundError, match=files[2].name):
        EmbeddingCache(encoder, tmp_path / "cache")(files)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_tower_in_training_is_put_to_rest(tower, files, tmp_path):
    encoder = Encoder.bundled(tower).train()
    EmbeddingCache(encoder, tmp_path / "cache")
    assert not encoder.tower.training
