"""The training state is restored exactly, never partially, and its file is never executed."""

import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ugrie.training.state import TrainingState, best_epoch


@pytest.fixture
def make(make_model, nested):
    """Builds the state of a new model after some training steps."""

    def build(seed: int, steps: int) -> TrainingState:
        torch.manual_seed(seed)
        model = make_model(nested)
        optimizer = torch.optim.AdamW(model.mapper.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
        for _ in range(steps):
            optimizer.zero_grad()
            model.mapper(torch.randn(3, 8)).square().sum().backward()
            optimizer.step()
            schedule.step()
        best = {name: tensor + 1 for name, tensor in model.state_dict().items()}
        rng = np.random.default_rng(seed)
        rng.random(seed)
        return TrainingState(model, optimizer, schedule, rng, best, [{"epoch": 0, "training": 1 / 3, "validation": float("nan")}])

    return build


def test_what_is_restored_is_what_was_saved(make, tmp_path):
    ours = make(1, steps=4)
    ours.save(tmp_path / "deep" / "state.pt")
    expected = torch.rand(3), ours.rng.random(3)
    theirs = make(2, steps=0)
    theirs.restore(tmp_path / "deep" / "state.pt")
    assert torch.equal(torch.rand(3), expected[0])
    assert theirs.rng.random(3).tolist() == expected[1].tolist()
    for a, b in ((ours.model.state_dict(), theirs.model.state_dict()), (ours.best, theirs.best)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert ours.schedule.state_dict() == theirs.schedule.state_dict()
    moments = [[value for state in p.optimizer.state_dict()["state"].values() for value in state.values()] for p in (ours, theirs)]
    assert len(moments[0]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert repr(ours.curve) == repr(theirs.curve)


def test_without_a_file_nothing_changes(make, tmp_path):
    progress = make(1, steps=1)
    before = {name: tensor.clone() for name, tensor in progress.model.state_dict().items()}
    progress.restore(tmp_path / "state.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in progress.model.state_dict().items())


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"x" * 100, pickle.dumps({"model": Harm()}, protocol=2)], ids=["empty", "cut", "text", "pickle"]
)
def test_a_file_that_holds_no_state_is_as_none(make, tmp_path, monkeypatch, caplog, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state.pt").write_bytes(content)
    progress = make(1, steps=0)
    progress.restore(tmp_path / "state.pt")
    assert "training from the start" in caplog.text
    assert len(progress.curve) == 1
    assert not (tmp_path / "harmed").exists()


def test_a_state_is_cut_short_nowhere(make, tmp_path):
    make(1, steps=1).save(tmp_path / "state.pt")
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: len(whole) // 2])
    progress = make(2, steps=0)
    progress.restore(tmp_path / "state.pt")
    assert len(progress.curve) == 1


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, float("nan"), float("inf")]), max_size=6))
def test_the_best_epoch_is_the_first_of_the_least_loss(losses):
    curve = [{"epoch": i, "training": 0.0, "validation": loss} for i, loss in enumerate(losses)]
    best = best_epoch(curve)
    finite = [loss for loss in losses if np.isfinite(loss)]
    assert best == (losses.index(min(finite)) if finite else -1)
