"""Predictions for images: probabilities of every label of every scheme, and the filled sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np

from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template, TemplateError


@dataclass(frozen=True)
class Prediction:
    """The predictions for n images, by scheme: `probs` is float32 [n, labels], `choices` int64 [n] the labels in the sentence."""

    template: Template
    probs: Mapping[str, np.ndarray]
    choices: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.choices.values())))

    def values(self, scheme: Scheme) -> np.ndarray:
        """Return the expectation over an ordinal scheme's values, in its range: float32 [n]."""
        return self.probs[scheme.name] @ np.asarray(scheme.values, np.float32)

    def sentences(self) -> list[str]:
        """Return the filled template of each image."""
        schemes = self.template.schemes
        rows, of_row = np.unique(np.stack([self.choices[scheme.name] for scheme in schemes], 1), axis=0, return_inverse=True)
        filled = [self.template.render({s.name: s.label_names[i] for s, i in zip(schemes, row, strict=True)}) for row in rows]
        return [filled[i] for i in of_row]

    def annotations(self) -> "Iterator[Annotation]":
        """Yield the predictions image by image."""
        for i, sentence in enumerate(self.sentences()):
            readings = {}
            for scheme in self.template.schemes:
                probs = dict(zip(scheme.label_names, self.probs[scheme.name][i].tolist(), strict=True))
                label = scheme.label_names[self.choices[scheme.name][i]]
                value = float(self.probs[scheme.name][i] @ np.asarray(scheme.values)) if scheme.values else None
                readings[scheme.name] = Reading(label, probs, value)
            yield Annotation(sentence, readings)


@dataclass(frozen=True)
class Reading:
    """An image's result in one scheme. `value`, in the scheme's range, is None for categorical schemes.

    A label from a freely written sentence has no `probs`, and its score is NaN.
    """

    label: str
    probs: Mapping[str, float]
    value: float | None

    @cached_property
    def score(self) -> float:
        """The probability of `label`."""
        return self.probs.get(self.label, nan)


@dataclass(frozen=True)
class Annotation:
    """An image's results in all schemes: `annotation["ekman6"].label`."""

    sentence: str
    readings: Mapping[str, Reading]

    def __getitem__(self, scheme: str) -> Reading:
        return self.readings[scheme]


def read(sentence: str, template: Template) -> Annotation:
    """Return the labels that a sentence states for a template's schemes; none if it does not follow the template."""
    readings = {}
    try:
        labels = template.parse(sentence)
    except TemplateError:
        labels = {}
    for scheme in template.schemes:
        if scheme.name in labels:
            value = scheme.values[scheme.label_index(labels[scheme.name])] if scheme.values else None
            readings[scheme.name] = Reading(labels[scheme.name], {}, value)
    return Annotation(sentence, readings)
