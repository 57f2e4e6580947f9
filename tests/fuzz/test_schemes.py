"""Fuzz `ugrie.schemes.scheme.load_scheme` with scheme files, and `ugrie.schemes.template.Template` with schemes and sentences."""

import tomllib

from hypothesis import strategies as st

from tests.fuzz.inputs import NAMES, changed, mutated, toml
from ugrie.schemes.scheme import FOLDER

OWN = {
    "name": "weather",
    "title": "Weather",
    "kind": "categorical",
    "clause": "the weather is",
    "source": "a test",
    "wheel": ["rainy", "sunny"],
    "labels": [{"name": "sunny", "polarity": "positive", "synonyms": ["bright", "clear"]}, {"name": "rainy"}],
    "crosswalks": {"ekman6": {"source": "a test", "unmapped": ["rainy"], "labels": {"joy": ["sunny"]}}},
}
ORDINAL = {
    "name": "weather",
    "title": "Weather",
    "kind": "ordinal",
    "clause": "the wind is",
    "source": "a test",
    "range": [0.0, 2.0],
    "labels": [{"name": "still", "value": 0.0}, {"name": "blowing", "value": 2.0}],
}
BUNDLED = [tomllib.loads(path.read_text()) | {"name": "weather"} for path in sorted(FOLDER.glob("*.toml"))]
FILES = [toml(OWN), toml(ORDINAL), *(path.read_bytes() for path in sorted(FOLDER.glob("*.toml"))[:5])]
ODD = [b"\xff\xfe", b"x = " + b"[" * 5000, b"x = " + b"{a=" * 5000, b"x = 1" + b"0" * 5000, b"a." * 5000 + b"a = 1"]

# Words of few letters, which are prefixes of each other or equal when case-folded; ODD_WORDS are mostly not valid.
WORDS = st.sampled_from(["a", "A", "b", "b", "ß", "ss", "ı", "İ", "é\u0345"])
ODD_WORDS = st.text(st.sampled_from("a .,;-_'/\u00a0\u200b\x1c\x85\n"), min_size=1, max_size=4)
PHRASES = st.lists(WORDS, min_size=1, max_size=2).map(" ".join)


@st.composite
def own_schemes(draw):
    """Draw a few schemes, some of them invalid, and a sentence made of their clauses and labels."""
    phrases = ODD_WORDS | PHRASES if draw(st.integers(0, 5)) == 0 else PHRASES
    schemes = []
    for name in draw(st.sampled_from(["a", "ab", "ab", "abc", "aa"])):
        first, *others = draw(st.lists(phrases, min_size=3, max_size=4, unique_by=str.casefold))
        synonyms = [others.pop()] if draw(st.booleans()) else []
        labels = [{"name": first, "synonyms": synonyms}, *({"name": other} for other in others)]
        common = {"name": name, "title": "t", "kind": "categorical", "source": "a test"}
        # A clause made of another clause and the first word of its label.
        prefixes = [f"{scheme['clause']} {label['name'].split(' ')[0]}" for scheme in schemes for label in scheme["labels"]]
        clause = draw(st.sampled_from(prefixes) if prefixes and draw(st.booleans()) else phrases)
        schemes.append(common | {"clause": clause, "labels": labels})
    stated = [f"{scheme['clause']} {label['name']}" for scheme in schemes for label in scheme["labels"]]
    clauses = draw(st.lists(st.sampled_from(stated) | phrases, max_size=4))
    return schemes, draw(st.sampled_from([", ", " , ", ","])).join(["Overall", *clauses]) + draw(st.sampled_from([".", "", " ", ".."]))


def test_a_scheme_file_is_read_or_a_scheme_error(explore):
    files = changed([OWN, ORDINAL, *BUNDLED]).map(toml) | mutated(FILES) | st.sampled_from(ODD)
    outcomes = explore("scheme", files, lambda text: ("weather.toml", {"weather.toml": text}), 120)
    assert outcomes.keys() == {"valid", "SchemeError"}


def test_a_scheme_of_any_path_is_read_or_a_scheme_error(explore):
    paths = NAMES | st.sampled_from(["x" * 5000, "folder", "weather", "weather.toml/x", "ekman6"])
    trials = st.tuples(paths, st.sampled_from(["", ".toml"])).map("".join)
    outcomes = explore("scheme", trials, lambda path: (path, {"weather.toml": toml(OWN), "folder.toml/x": b""}), 40)
    assert outcomes.keys() <= {"valid", "SchemeError"}


def test_a_sentence_of_any_schemes_is_read_as_it_was_written_or_a_template_error(explore):
    choices = st.lists(st.integers(0, 2), min_size=3, max_size=3)
    outcomes = explore("sentence", st.builds(lambda given, choices: (*given, choices), own_schemes(), choices), examples=200)
    assert outcomes.keys() == {"valid", "TemplateError"}


def test_any_text_is_read_or_a_template_error(explore):
    words = [scheme["clause"] for scheme in BUNDLED] + [label["name"] for scheme in BUNDLED for label in scheme["labels"]]
    parts = st.sampled_from([*words, ", ", " ", "Overall", ".", "x" * 100_000, "\x1b[2J", "\n"]) | st.text(max_size=5)
    texts = st.lists(parts, max_size=8).map("".join)
    schemes = [scheme | {"name": f"s{i}"} for i, scheme in enumerate(BUNDLED)]
    outcomes = explore("sentence", st.tuples(st.just(schemes), texts | texts.map("Overall, {}".format), st.just([1] * 15)), examples=50)
    assert outcomes.keys() <= {"valid", "TemplateError"}
