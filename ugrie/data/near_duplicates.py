"""Joins the groups of images that show the same, so that a split never has one of them on each side.

Data sets share photos, and some hold a photo twice: cropped, scaled or compressed anew, its embedding stays nearly the same.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import pairwise_distances_chunked
from sklearn.preprocessing import normalize

ALIKE = 0.95  # cosine of two embeddings less the mean of all; photos of one subject reach 0.9
FEW = 8  # images; the mean of fewer says little, and two less their mean are opposites


def joined_groups(embeddings: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the groups, [n], with those joined that have an image in common, under the first one's name.

    `embeddings` are float [n, dim]. Images have the same content if their embeddings are alike.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(embeddings) < FEW:
        return groups
    unit = normalize(embeddings)
    centred = normalize(unit - unit.mean(0))
    component, start = np.arange(len(names)), 0
    for distances in pairwise_distances_chunked(centred, metric="cosine"):  # joined chunk by chunk: copies of one image make many pairs
        rows, columns = np.nonzero(distances < 1 - ALIKE)
        first, second = component[codes[rows + start]], component[codes[columns]]
        links = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(names), len(names)))
        component = connected_components(links, directed=False)[1][component]
        start += len(distances)
    earliest = np.full(component.max() + 1, len(names))
    np.minimum.at(earliest, component, np.arange(len(names)))
    return names[earliest[component]][codes]
