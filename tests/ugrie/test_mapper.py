"""The mapper sees directions: norms don't count, and what all images have in common is taken away."""

import pytest
import torch

from ugrie.mapper import Mapper


@pytest.fixture
def cone() -> torch.Tensor:
    """Embeddings as CLIP has them: a narrow cone, of which few directions vary much."""
    draw = torch.Generator().manual_seed(1)
    spread = torch.tensor([2.0, 1.0, 0.5, 0.1, 0.05, 0.01])
    return 10 * torch.ones(6) + torch.randn(500, 6, generator=draw) * spread


@pytest.fixture
def mapper(cone) -> Mapper:
    torch.manual_seed(0)
    mapper = Mapper(embedding_dim=6, components=3, prefix_length=2, d_model=8, hidden=16, dropout=0.5)
    mapper.fit_projection(cone)
    return mapper.eval()


def projected(mapper: Mapper, embeddings: torch.Tensor) -> torch.Tensor:
    return (torch.nn.functional.normalize(embeddings, dim=-1) - mapper.mean) @ mapper.projection


def test_an_embedding_becomes_a_prefix(mapper, cone):
    assert mapper(cone).shape == (500, 2, 8)


def test_the_norm_of_an_embedding_does_not_count(mapper, cone):
    torch.testing.assert_close(mapper(cone), mapper(cone * torch.linspace(0.1, 30, 500)[:, None]), atol=1e-4, rtol=1e-4)


def test_the_direction_does(mapper, cone):
    assert (mapper(cone[:1]) - mapper(cone[1:2])).abs().max() > 1e-2


def test_fitted_components_are_centred_uncorrelated_and_of_mean_variance_one(mapper, cone):
    components = projected(mapper, cone)
    covariance = torch.cov(components.T, correction=0)
    torch.testing.assert_close(components.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance - covariance.diag().diag(), torch.zeros(3, 3), atol=1e-3, rtol=0)
    assert covariance.diag().mean().item() == pytest.approx(1, abs=1e-3)


def test_components_keep_their_proportions_the_largest_first(mapper, cone):
    unit = torch.nn.functional.normalize(cone.double(), dim=-1)
    variances = torch.linalg.svdvals(unit - unit.mean(0))[:3] ** 2
    ours = projected(mapper, cone).var(0).double()
    torch.testing.assert_close(ours / ours[0], variances / variances[0], atol=1e-3, rtol=1e-3)


def test_what_is_learned_of_the_embeddings_is_saved_with_the_weights(mapper, cone):
    other = Mapper(embedding_dim=6, components=3, prefix_length=2, d_model=8, hidden=16).eval()
    other.load_state_dict(mapper.state_dict())
    assert torch.equal(other(cone), mapper(cone))


def test_fewer_images_than_components_still_give_a_projection():
    mapper = Mapper(embedding_dim=6, components=5, prefix_length=1, d_model=4, hidden=8).eval()
    images = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    mapper.fit_projection(images)
    assert torch.isfinite(mapper(images)).all()


def test_the_projection_is_not_trained(mapper, cone):
    before = mapper.projection.clone()
    optimizer = torch.optim.SGD(mapper.parameters(), lr=1.0)
    mapper(cone).square().mean().backward()
    optimizer.step()
    assert torch.equal(mapper.projection, before)
