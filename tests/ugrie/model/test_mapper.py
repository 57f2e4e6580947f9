"""The mapper uses directions: norms don't count, and the mean of all images is subtracted."""

import pytest
import torch

from ugrie.model import mapper as module
from ugrie.model.mapper import Mapper


@pytest.fixture
def cone() -> torch.Tensor:
    """Embeddings like CLIP's: a narrow cone, with much variance in few directions only."""
    draw = torch.Generator().manual_seed(1)
    spread = torch.tensor([2.0, 1.0, 0.5, 0.1, 0.05, 0.01])
    return 10 * torch.ones(6) + torch.randn(500, 6, generator=draw) * spread


@pytest.fixture
def mapper(cone) -> Mapper:
    torch.manual_seed(0)
    mapper = Mapper(embedding_dim=6, components=3, landmarks=20, answers=4, prefix_length=2, d_model=8, hidden=16, dropout=0.5)
    mapper.fit_projection(cone)
    mapper.set_regression(mapper.components(cone[:15]), torch.randn(15, 4), torch.randn(4))
    return mapper.eval()


def test_an_embedding_becomes_a_prefix(mapper, cone):
    assert mapper(cone).shape == (500, 2, 8)


def test_the_norm_of_an_embedding_does_not_count(mapper, cone):
    torch.testing.assert_close(mapper(cone), mapper(cone * torch.linspace(0.1, 30, 500)[:, None]), atol=1e-4, rtol=1e-4)


def test_the_direction_does(mapper, cone):
    assert (mapper(cone[:1]) - mapper(cone[1:2])).abs().max() > 1e-2


def test_components_are_the_directions_from_the_mean_the_largest_first(mapper, cone):
    unit = torch.nn.functional.normalize(cone.double(), dim=-1)
    _, lengths, directions = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    projected = torch.nn.functional.normalize((unit - unit.mean(0)) @ directions[:3].T, dim=-1)
    signs = torch.sign((projected * mapper.components(cone)).sum(0))
    assert (lengths[:2] > lengths[1:3]).all()
    torch.testing.assert_close(mapper.components(cone).double(), projected * signs, atol=1e-3, rtol=1e-3)


def test_components_are_of_length_one(mapper, cone):
    torch.testing.assert_close(mapper.components(cone).norm(dim=-1), torch.ones(500))


def test_what_is_learned_of_the_embeddings_is_saved_with_the_weights(mapper, cone):
    other = Mapper(embedding_dim=6, components=3, landmarks=20, answers=4, prefix_length=2, d_model=8, hidden=16).eval()
    other.load_state_dict(mapper.state_dict())
    assert torch.equal(other(cone), mapper(cone))


def test_fewer_images_than_components_still_give_a_projection():
    mapper = Mapper(embedding_dim=6, components=5, landmarks=3, answers=2, prefix_length=1, d_model=4, hidden=8).eval()
    images = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    mapper.fit_projection(images)
    assert torch.isfinite(mapper(images)).all()


def test_a_projection_is_the_same_in_blocks(mapper, cone, monkeypatch):
    at_once = mapper.mean.clone(), mapper.projection.clone()
    monkeypatch.setattr(module, "BLOCK", 7)
    mapper.fit_projection(cone)
    torch.testing.assert_close(mapper.mean, at_once[0])
    signs = torch.sign((mapper.projection * at_once[1]).sum(0))
    torch.testing.assert_close(mapper.projection * signs, at_once[1])


def test_room_for_more_landmarks_is_made(mapper, cone):
    mapper.resize(40)
    assert mapper.state_dict()["landmarks"].shape == (40, 3)
    mapper.set_regression(mapper.components(cone[:40]), torch.ones(40, 4), torch.zeros(4))
    assert mapper.answers(cone).shape == (500, 4)


def test_answers_are_those_of_a_laplacian_kernel(mapper, cone):
    components = mapper.components(cone[20:23]).double()
    distances = (components[:, None] - mapper.components(cone[:15]).double()).norm(dim=-1)
    expected = torch.exp(-distances / 2) @ mapper.weights[:15].double() + mapper.bias.double()
    torch.testing.assert_close(mapper.answers(cone[20:23]).double(), expected, atol=1e-4, rtol=1e-4)


def test_a_regression_of_fewer_landmarks_leaves_nothing_of_another(mapper, cone):
    mapper.set_regression(mapper.components(cone[:2]), torch.zeros(2, 4), torch.ones(4))
    torch.testing.assert_close(mapper.answers(cone), torch.ones(500, 4))


def test_only_what_follows_the_answers_is_trained(mapper, cone):
    before = {name: buffer.clone() for name, buffer in mapper.named_buffers()}
    assert {"projection", "landmarks", "weights"} < before.keys()
    optimizer = torch.optim.SGD(mapper.parameters(), lr=1.0)
    mapper(cone).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(buffer, before[name]) for name, buffer in mapper.named_buffers())
