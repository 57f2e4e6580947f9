"""Prompts: the texts by which a CLIP's text tower knows a scheme's labels."""

from ugrie.schemes.scheme import Label, Scheme

TEMPLATES = ("{word}.", "{clause} {word}.", "a photo. {clause} {word}.", "a picture in which {clause} {word}.")

Prompts = tuple[tuple[str, ...], ...]
"""A label's prompts: for each of its words, which are its name and synonyms, one from each template."""


def prompts_of(scheme: Scheme) -> tuple[Prompts, ...]:
    """Return the prompts of each label, or of an ordinal scheme's lowest and highest."""
    labels = scheme.labels if scheme.kind == "categorical" else (scheme.labels[0], scheme.labels[-1])
    words = [_words(label) for label in labels]
    return tuple(tuple(tuple(t.format(clause=scheme.clause, word=word) for t in TEMPLATES) for word in own) for own in words)


def _words(label: Label) -> list[str]:
    """Return a label's name and synonyms, each once however it is written: as it stands first."""
    found: dict[str, str] = {}
    for word in (label.name, *label.synonyms):
        found.setdefault(word.casefold(), word)
    return list(found.values())
