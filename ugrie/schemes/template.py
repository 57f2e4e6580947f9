"""The sentence that UGRIE writes about an image: an opening, and one clause with a slot for each scheme.

    >>> template = Template.of("polarity2", "ekman6")
    >>> template.render({"polarity2": "positive", "ekman6": "joy"})
    'Overall, the mood is positive, the basic emotion is joy.'
    >>> template.parse("Overall, the mood is positive, the basic emotion is joy.")
    {'polarity2': 'positive', 'ekman6': 'joy'}

Every clause reads the same wherever it stands, so that any subset of schemes, in any order, is a sentence of the same
language: the model learns clauses, not one fixed text (Shi et al., One for All, IEEE TCSVT 34(8), 2024, whose abstract
says that classes are filled into a natural language template; the wording is ours).
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
    """A sentence doesn't follow its template. The message names the clause or the word."""


@dataclass(frozen=True)
class Template:
    """Schemes in the order in which the sentence states them."""

    schemes: tuple[Scheme, ...]

    def __post_init__(self) -> None:
        if not self.schemes:
            raise TemplateError("a template needs at least one scheme")
        for what in ("name", "clause"):
            words = [getattr(scheme, what) for scheme in self.schemes]
            folded = [word.casefold() for word in words]
            twice = next((word for word in words if folded.count(word.casefold()) > 1), None)
            if twice is not None:
                raise TemplateError(f"two schemes of the template have the {what} '{twice}'")
        said: dict[str, str] = {}
        for scheme in self.schemes:
            for text in (f"{scheme.clause} {word}" for word in scheme.words):
                if said.setdefault(text.casefold(), scheme.name) != scheme.name:
                    raise TemplateError(f"'{text}' can be read as {said[text.casefold()]} and as {scheme.name}: change a clause")

    @classmethod
    def of(cls, *names: str) -> "Template":
        """A template of bundled schemes (by name) or a user's own (by the path of a TOML file)."""
        return cls(tuple(load_scheme(name) for name in names))

    @property
    def literals(self) -> tuple[str, ...]:
        """The literal text before each slot; the first begins with the opening."""
        clauses = [literal(scheme) for scheme in self.schemes]
        return (OPENING + clauses[0], *clauses[1:])

    def render(self, labels: Mapping[str, str]) -> str:
        """The sentence with each scheme's slot filled. Raises TemplateError if a label is missing or unknown."""
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
        """The label of each scheme the sentence states, in the template's order; synonyms are read as their label.

        Clauses may come in any order and some may be absent: free generation is held to nothing. Case and spacing don't
        count. Raises TemplateError for a clause of no scheme, one stated twice and for a word that is no label.
        """
        text = re.sub(r"\s+", " ", sentence).strip().removesuffix(CLOSING)
        opening, *clauses = [part.strip() for part in text.split(",")]
        if opening.casefold() != OPENING.casefold():
            raise TemplateError(f"a sentence begins with '{OPENING},', this one with '{opening[:40]}'")
        by_clause = {scheme.clause.casefold(): scheme for scheme in self.schemes}
        longest_first = sorted(by_clause, key=len, reverse=True)
        found: dict[str, str] = {}
        for clause in clauses:
            begun = [text for text in longest_first if clause.casefold().startswith(text + " ")]
            if not begun:
                raise TemplateError(f"'{clause[:60]}' is no clause of this template{did_you_mean(clause, by_clause)}")
            words = {text: clause.casefold()[len(text) + 1 :] for text in begun}
            # A clause may begin another: the one that the rest is a label of is meant.
            text = next((text for text in begun if words[text] in by_clause[text].words), begun[0])
            scheme = by_clause[text]
            if scheme.name in found:
                raise TemplateError(f"the sentence states {scheme.name} twice")
            try:
                found[scheme.name] = scheme.label_names[scheme.label_index(words[text])]
            except SchemeError as error:
                raise TemplateError(str(error)) from None
        return {scheme.name: found[scheme.name] for scheme in self.schemes if scheme.name in found}


def literal(scheme: Scheme) -> str:
    """The text of a scheme's clause up to its slot, wherever it stands in a sentence."""
    return f", {scheme.clause}"
