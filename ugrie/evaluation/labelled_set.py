"""Images with the labels that people gave them, to measure a checkpoint by.

They lie in a folder whose `labels.csv` names, in the column `image`, files in `images/`; or in an .npz with `embedding`. The
other columns or arrays are labels, each named as its scheme; an empty cell (or NaN) is no label.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ugrie.data.format import Column, Format
from ugrie.data.labelled import target
from ugrie.data.readers import read_table
from ugrie.data.table import DataError, Table
from ugrie.model.checkpoint import Config
from ugrie.schemes.scheme import Scheme
from ugrie.text import did_you_mean

logger = logging.getLogger(__name__)
FORMAT = Format(labels="labels.csv", images="images", file="image")


@dataclass(frozen=True)
class Labels:
    """The `table` of n images, each with a label at least; and `targets` by scheme, float32 [n, labels].

    A row of zeros is an image without a label of that scheme. `without_labels` counts those that had none and were left out.
    """

    table: Table
    targets: Mapping[str, np.ndarray]
    without_labels: int


def read_labels(path: Path, config: Config, ranges: Mapping[str, tuple[float, float]]) -> Labels:
    """The labels that `path` has for a checkpoint's schemes, in its order; other columns are logged and left out.

    `ranges` are the scales on which ratings were given, by scheme; the scheme's own by default. Raises DataError, also where
    an image's file is missing or embeddings are another tower's. Decodes no image.
    """
    known = {scheme.name: scheme for scheme in config.schemes}
    for name in ranges:
        if name not in known:
            raise DataError(f"--range {name}: no scheme of {config.name}{did_you_mean(name, known)}; it knows {', '.join(known)}")
        if known[name].kind != "ordinal":
            raise DataError(f"--range {name}: {name} is categorical, only ratings have a range")
    table = read_table(path, FORMAT)
    size = config.tower.embedding_dim
    if isinstance(table.images, np.ndarray) and table.images.shape[1] != size:
        raise DataError(f"{path}: embeddings of {table.images.shape[1]} dimensions; {config.name} reads {size}, of its own tower")
    found = {name: _target(scheme, table, ranges.get(name)) for name, scheme in known.items() if name in table.columns}
    found = {name: labels for name, labels in found.items() if labels.any()}
    columns = [name for name in table.columns if name != FORMAT.file]
    if not found:
        raise DataError(f"{table.source} has no labels for {config.name}, which knows {', '.join(known)}; it has {', '.join(columns)}")
    for name in ranges:
        if name not in found:
            raise DataError(f"--range {name}: {table.source} has no ratings of {name}; it has {', '.join(columns)}")
    other = [name for name in columns if name not in found]
    if other:
        logger.info("left out, as no labels of %s: %s", config.name, ", ".join(other))
    labelled = np.flatnonzero(np.any([labels.any(1) for labels in found.values()], axis=0))
    return Labels(table.take(labelled), {name: labels[labelled] for name, labels in found.items()}, len(table) - len(labelled))


def _target(scheme: Scheme, table: Table, scale: tuple[float, float] | None) -> np.ndarray:
    try:
        return target(scheme, Column(range=scale), table.columns[scheme.name])
    except DataError as error:
        remedy = f"; --range {scheme.name}=LOW,HIGH states the scale of the ratings" if scheme.kind == "ordinal" else ""
        raise DataError(f"{table.source}, column '{scheme.name}': {error}{remedy}") from None
