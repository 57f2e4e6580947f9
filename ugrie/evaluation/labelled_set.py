"""Reads the labelled images that a checkpoint is evaluated on.

They are a folder whose `labels.csv` names, in its column `image`, files in `images/`; Parquet with a column `image`; or an .npz with
an array `embedding`. The other columns or arrays are labels, each named as its scheme. An empty cell (or NaN) is no label.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ugrie.data.format import Column, Format
from ugrie.data.readers import read_table
from ugrie.data.table import DataError, Table
from ugrie.data.targets import target
from ugrie.model.checkpoint import Config
from ugrie.schemes.scheme import Scheme
from ugrie.text import did_you_mean

logger = logging.getLogger(__name__)
FORMAT = Format(labels="labels.csv", images="images", file="image")


@dataclass(frozen=True)
class LabelledSet:
    """The `table` of n images, each with at least one label, and `targets` by scheme, float32 [n, labels].

    A row of zeros is an image without a label of that scheme. `without_labels` counts the images that had no label at all and were
    left out.
    """

    table: Table
    targets: Mapping[str, np.ndarray]
    without_labels: int


def read_labelled_set(path: Path, config: Config, ranges: Mapping[str, tuple[float, float]]) -> LabelledSet:
    """Read the labels that `path` has for a checkpoint's schemes, in the checkpoint's order; other columns are logged and left out.

    `ranges` are the scales of the ratings, by scheme; the scheme's own by default. Decodes no image. Raises DataError, also if an
    image file is missing or embeddings are another tower's.
    """
    known = {scheme.name: scheme for scheme in config.schemes}
    for name in ranges:
        if name not in known:
            raise DataError(f"--range {name}: no scheme of {config.name}{did_you_mean(name, known)}; it knows {', '.join(known)}")
        if known[name].kind != "ordinal":
            raise DataError(f"--range {name}: {name} is categorical, only ratings have a range: leave the flag out")
    table = read_table(path, FORMAT)
    dim = config.tower.embedding_dim
    if isinstance(table.images, np.ndarray) and table.images.shape[1] != dim:
        raise DataError(f"{path}: embeddings of {table.images.shape[1]} dimensions; {config.name} reads {dim}, of its own tower")
    targets = {name: _target(scheme, table, ranges.get(name)) for name, scheme in known.items() if name in table.columns}
    targets = {name: labels for name, labels in targets.items() if labels.any()}
    columns = [name for name in table.columns if name != FORMAT.file]
    if not targets:
        raise DataError(f"{table.source} has no labels for {config.name}, which knows {', '.join(known)}; it has {', '.join(columns)}")
    for name in ranges:
        if name not in targets:
            raise DataError(f"--range {name}: {table.source} has no ratings of {name}; it has {', '.join(columns)}")
    ignored = [name for name in columns if name not in targets]
    if ignored:
        logger.info("ignored, as they hold no labels for %s: %s", config.name, ", ".join(ignored))
    labelled = np.flatnonzero(np.any([labels.any(1) for labels in targets.values()], axis=0))
    return LabelledSet(table.take(labelled), {name: labels[labelled] for name, labels in targets.items()}, len(table) - len(labelled))


def _target(scheme: Scheme, table: Table, scale: tuple[float, float] | None) -> np.ndarray:
    """Return a column's labels, float32 [images, labels]. Raises DataError that names the column and, for ratings, --range."""
    try:
        return target(scheme, Column(range=scale), table.columns[scheme.name])
    except DataError as error:
        remedy = f"; --range {scheme.name}=LOW,HIGH states the scale of the ratings" if scheme.kind == "ordinal" else ""
        raise DataError(f"{table.source}, column '{scheme.name}': {error}{remedy}") from None
