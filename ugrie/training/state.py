"""Where a training stands, kept in a file after every epoch, so that an interrupted one goes on as if nothing had happened.

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


class Point(TypedDict):
    """An epoch's mean losses, in nats a slot. What is trained on is mixed, noisy and seen through dropout; what is held out is not."""

    epoch: int
    training: float
    validation: float | None  # none where nothing is held out


def best_epoch(curve: Sequence[Point]) -> int:
    """The epoch of the least validation loss, the first of several; -1 where there is none."""
    losses = [(point["validation"], point["epoch"]) for point in curve if point["validation"] is not None]
    return min((loss for loss in losses if math.isfinite(loss[0])), default=(math.inf, -1))[1]


@dataclass
class Progress:
    """A training between two epochs: everything that the next one depends on, torch's own random generator included."""

    model: UGRIE
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    draw: np.random.Generator
    best: dict[str, Tensor]  # the weights of the best epoch yet
    curve: list[Point]

    def save(self, file: Path) -> None:
        """Writes a file that is either complete or as it was before."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draw": json.dumps(self.draw.bit_generator.state),
            "torch": torch.get_rng_state(),
            "best": self.best,
            "curve": self.curve,
        }
        write_whole(file, lambda part: torch.save(state, part))

    def restore(self, file: Path) -> None:
        """Goes back to what a file says, if there is one. One that can't be read is as none, with a warning."""
        state = self._read(file)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.draw.bit_generator.state = json.loads(state["draw"])
        torch.set_rng_state(state["torch"])
        self.best, self.curve = state["best"], state["curve"]
        logger.info("going on after epoch %d, from %s", len(self.curve), file)

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        try:
            return torch.load(file, weights_only=True)
        except FileNotFoundError:
            return None
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            logger.warning("starting anew, as %s can't be read: %s", file, next(iter(str(error).splitlines()), "it is empty"))
            return None
