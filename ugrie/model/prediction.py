"""What UGRIE says of images: probabilities of every label in every scheme, and the filled sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np

from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template, TemplateError


@dataclass(frozen=True)
class Prediction:
    """A batch of n images in columns. `probs` float32 [n, labels] and `choices` int64 [n] (the label written), by scheme."""

    template: Template
    probs: Mapping[str, np.ndarray]
    choices: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.choices.values())))

    def values(self, scheme: Scheme) -> np.ndarray:
        """float32 [n]: the expectation over an ordinal scheme's labels, in its range."""
        return self.probs[scheme.name] @ np.asarray(scheme.values, np.float32)

    def sentences(self) -> list[str]:
        """The filled template of every image."""
        columns = [[scheme.label_names[i] for i in self.choices[scheme.name]] for scheme in self.template.schemes]
        names = [scheme.name for scheme in self.template.schemes]
        return [self.template.render(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]

    def annotations(self) -> "Iterator[Annotation]":
        """The same by image."""
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
    """One scheme's reading of an image. `value` (in the scheme's range) is None for categorical schemes.

    A label read from a sentence that was written freely has no `probs`, and NaN as its score.
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
    """One image's readings; `annotation["ekman6"].label`."""

    sentence: str
    readings: Mapping[str, Reading]

    def __getitem__(self, scheme: str) -> Reading:
        return self.readings[scheme]


def read(sentence: str, template: Template) -> Annotation:
    """What a sentence states of a template's schemes; nothing, where it does not follow the template."""
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
