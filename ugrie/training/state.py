"""The training state, saved after every epoch so that an interrupted training resumes and ends in the same weights.

The file holds tensors, numbers and text, and is read as nothing else (`torch.load` with `weights_only`).
"""

import json
import logging
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from ugrie.atomic import write_whole
from ugrie.model.model import UGRIE

logger = logging.getLogger(__name__)


class EpochMetrics(TypedDict):
    """An epoch's mean losses, in nats a slot. The training loss is of noisy, mixed-up images with dropout; the validation loss is not."""

    epoch: int
    training: float
    validation: float | None  # None if nothing is held out


def best_epoch(curve: Sequence[EpochMetrics]) -> int:
    """Return the epoch with the least validation loss, the first of several; -1 if no loss is finite."""
    losses = [(metrics["validation"], metrics["epoch"]) for metrics in curve if metrics["validation"] is not None]
    return min((loss for loss in losses if math.isfinite(loss[0])), default=(math.inf, -1))[1]


@dataclass
class TrainingState:
    """A training between two epochs: everything that the next epoch depends on, torch's global random generator included."""

    model: UGRIE
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator
    best: dict[str, Tensor]  # weights of the best epoch so far
    curve: list[EpochMetrics]

    def save(self, file: Path) -> None:
        """Write the state atomically: the file is complete, or as it was before."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draw": json.dumps(self.rng.bit_generator.state),
            "torch": torch.get_rng_state(),
            "best": self.best,
            "curve": self.curve,
        }
        write_whole(file, lambda part: torch.save(state, part))

    def restore(self, file: Path) -> None:
        """Load the state from a file if there is one. An unreadable file counts as none and is logged as a warning."""
        state = self._read(file)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.bit_generator.state = json.loads(state["draw"])
        torch.set_rng_state(state["torch"])
        self.best, self.curve = state["best"], state["curve"]
        logger.info("resuming after epoch %d, from %s", len(self.curve), file)

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        try:
            return torch.load(file, weights_only=True)
        except FileNotFoundError:
            return None
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), "it is empty")
            logger.warning("training from the start: %s can't be read: %s", file, reason)
            return None
