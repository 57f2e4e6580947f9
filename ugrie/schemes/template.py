"""Template of the sentence that UGRIE writes about an image: an opening, and one clause with a slot for each scheme.

    >>> template = Template.of("polarity2", "ekman6")
    >>> template.render({"polarity2": "positive", "ekman6": "joy"})
    'Overall, the mood is positive, the basic emotion is joy.'
    >>> template.parse("Overall, the mood is positive, the basic emotion is joy.")
    {'polarity2': 'positive', 'ekman6': 'joy'}

A clause's text doesn't depend on its position, so any subset of schemes in any order makes a valid sentence: the model learns
clauses, not one fixed text. That classes are filled into a natural-language template is from the abstract of Shi et al., One for
All, IEEE TCSVT 34(8), 2024; the wording is ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ugrie.errors import GivenError
from ugrie.schemes.scheme import Scheme, SchemeError, load_scheme
from ugrie.text import did_you_mean

OPENING = "Overall"
CLOSING = "."


class TemplateError(GivenError):
    """An impossible template, or a sentence or label that doesn't fit one. The message names the clause or the word."""


@dataclass(frozen=True)
class Template:
    """The schemes of a sentence, in its order."""

    schemes: tuple[Scheme, ...]

    def __post_init__(self) -> None:
        if not self.schemes:
            raise TemplateError("a template needs at least one scheme")
        for field in ("name", "clause"):
            values = [getattr(scheme, field) for scheme in self.schemes]
            folded = [value.casefold() for value in values]
            duplicate = next((value for value in values if folded.count(value.casefold()) > 1), None)
            if duplicate is not None:
                raise TemplateError(f"two schemes of the template have the {field} '{duplicate}'")
        owners: dict[str, str] = {}
        for scheme in self.schemes:
            for text in (f"{scheme.clause} {word}" for word in scheme.words):
                if owners.setdefault(text.casefold(), scheme.name) != scheme.name:
                    raise TemplateError(f"'{text}' can be read as {owners[text.casefold()]} and as {scheme.name}: change a clause")

    @classmethod
    def of(cls, *names: str) -> "Template":
        """Make a template of bundled schemes (by name) or a user's own (by path). Raises SchemeError or TemplateError."""
        return cls(tuple(load_scheme(name) for name in names))

    @property
    def literals(self) -> tuple[str, ...]:
        """The literal text before each slot. The first includes the opening."""
        clauses = [literal(scheme) for scheme in self.schemes]
        return (OPENING + clauses[0], *clauses[1:])

    def render(self, labels: Mapping[str, str]) -> str:
        """Return the sentence with all slots filled. Raises TemplateError if a label is missing or unknown."""
        missing = [scheme.name for scheme in self.schemes if scheme.name not in labels]
        if missing:
            raise TemplateError(f"no label given for {', '.join(missing)}")
        parts = []
        for text, scheme in zip(self.literals, self.schemes, strict=True):
            try:
                parts.append(f"{text} {scheme.labels[scheme.label_index(labels[scheme.name])].name}")
            except SchemeError as error:
                raise TemplateError(str(error)) from None
        return "".join(parts) + CLOSING

    def parse(self, sentence: str) -> dict[str, str]:
        """Return the label of each scheme in the sentence, in the template's order. Synonyms are read as their label.

        Clauses may be in any order, and some may be missing, because free generation is not constrained. Case and spacing are
        ignored. Raises TemplateError for an unknown clause, a clause stated twice and a word that is not a label.
        """
        text = re.sub(r"\s+", " ", sentence).strip().removesuffix(CLOSING)
        opening, *clauses = [part.strip() for part in text.split(",")]
        if opening.casefold() != OPENING.casefold():
            raise TemplateError(f"a sentence begins with '{OPENING},', but this one with '{opening[:40]}'")
        by_clause = {scheme.clause.casefold(): scheme for scheme in self.schemes}
        longest_first = sorted(by_clause, key=len, reverse=True)
        found: dict[str, str] = {}
        for clause in clauses:
            matches = [text for text in longest_first if clause.casefold().startswith(text + " ")]
            if not matches:
                raise TemplateError(f"'{clause[:60]}' is not a clause of this template{did_you_mean(clause, by_clause)}")
            words = {text: clause.casefold()[len(text) + 1 :] for text in matches}
            # One clause may be a prefix of another: choose the one whose labels include the rest.
            text = next((text for text in matches if words[text] in by_clause[text].words), matches[0])
            scheme = by_clause[text]
            if scheme.name in found:
                raise TemplateError(f"the sentence states {scheme.name} twice")
            try:
                found[scheme.name] = scheme.label_names[scheme.label_index(words[text])]
            except SchemeError as error:
                raise TemplateError(str(error)) from None
        return {scheme.name: found[scheme.name] for scheme in self.schemes if scheme.name in found}


def literal(scheme: Scheme) -> str:
    """Return the literal text of a scheme's clause up to its slot. It is the same at any position in a sentence."""
    return f", {scheme.clause}"
