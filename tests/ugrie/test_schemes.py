"""Schemes are data: those that come with UGRIE are sound, and a user's own is checked with messages that name the field."""

import re
import tomllib

import pytest
from pydantic import ValidationError

from ugrie.schemes import FOLDER, Label, Scheme, SchemeError, bundled_schemes, did_you_mean, load_scheme

GOOD = """
name = "weather"
title = "Weather"
kind = "categorical"
clause = "the weather is"
source = "a test"

[[labels]]
name = "sunny"
polarity = "positive"
synonyms = ["bright", "clear"]

[[labels]]
name = "rainy"
"""

ORDINAL = """
name = "weather"
title = "Weather"
kind = "ordinal"
clause = "the wind is"
source = "a test"
range = [0, 2]

[[labels]]
name = "still"
value = 0

[[labels]]
name = "blowing"
value = 2
"""


@pytest.fixture
def scheme_file(tmp_path):
    """Writes weather.toml and gives its path."""

    def write(text):
        path = tmp_path / "weather.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_emotion_models_that_are_promised_are_bundled():
    assert {"ekman6", "mikels8", "polarity2", "polarity3", "valence", "arousal", "dominance"} <= set(bundled_schemes())


@pytest.mark.parametrize("name", bundled_schemes())
def test_a_bundled_scheme_loads_and_its_labels_are_unique(name):
    scheme = load_scheme(name)
    assert scheme.name == name
    assert len({label.casefold() for label in scheme.label_names}) == len(scheme.labels) >= 2
    assert scheme.source
    assert scheme.title


@pytest.mark.parametrize("name", bundled_schemes())
def test_every_word_of_a_bundled_scheme_finds_its_label(name):
    scheme = load_scheme(name)
    for i, label in enumerate(scheme.labels):
        for word in (label.name, *label.synonyms):
            assert scheme.label_index(word) == scheme.label_index(word.upper()) == i


def test_bundled_clauses_differ_so_that_all_schemes_fit_one_sentence():
    clauses = [load_scheme(name).clause for name in bundled_schemes()]
    assert len(set(clauses)) == len(clauses)


@pytest.mark.parametrize("name", [name for name in bundled_schemes() if load_scheme(name).kind == "ordinal"])
def test_bundled_ordinal_schemes_have_nine_even_steps(name):
    scheme = load_scheme(name)
    assert scheme.values == tuple(map(float, range(1, 10)))
    assert scheme.range == (1.0, 9.0)


def test_polarity_and_value_of_a_label_agree():
    for label in load_scheme("valence").labels:
        assert label.polarity == ("negative" if label.value < 5 else "positive" if label.value > 5 else "neutral")


def test_ekmans_and_mikels_labels_are_theirs():
    assert load_scheme("ekman6").label_names == ("anger", "disgust", "fear", "joy", "sadness", "surprise")
    mikels = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
    assert load_scheme("mikels8").label_names == mikels


def test_every_bundled_file_is_listed():
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(bundled_schemes())


def test_a_users_own_scheme_is_loaded_by_its_path(scheme_file):
    scheme = load_scheme(scheme_file(GOOD))
    assert scheme.label_names == ("sunny", "rainy")
    assert scheme.labels[0].synonyms == ("bright", "clear")
    assert scheme.labels[1].polarity is None
    assert scheme.values == ()


def test_a_users_own_ordinal_scheme_has_its_range(scheme_file):
    scheme = load_scheme(scheme_file(ORDINAL))
    assert (scheme.range, scheme.values) == ((0.0, 2.0), (0.0, 2.0))


def test_a_scheme_is_a_value_that_can_be_a_key():
    fields = tomllib.loads(GOOD)
    assert {Scheme.model_validate(fields): 1}[Scheme.model_validate(fields)] == 1
    with pytest.raises(ValidationError):
        Scheme.model_validate(fields).name = "other"


def test_an_unknown_scheme_is_answered_with_the_nearest_and_all_there_are():
    with pytest.raises(SchemeError, match=r"'ekmann6' \(did you mean 'ekman6'\?\); bundled are arousal, .*\.toml"):
        load_scheme("ekmann6")


def test_a_name_is_not_a_way_out_of_the_folder():
    with pytest.raises(SchemeError, match="no scheme is named"):
        load_scheme("../schemes/ekman6")


def test_a_scheme_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SchemeError, match=re.escape(f"{tmp_path / 'moods.toml'}: there is no such scheme file")):
        load_scheme(str(tmp_path / "moods.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "weather"', "name = weather", "is not valid TOML"),
        ('name = "weather"', 'name = "climate"', "calls itself 'climate'"),
        ('name = "weather"', 'name = "Weather"', "name: String should match pattern"),
        ('title = "Weather"\n', "", "title: Field required"),
        ('source = "a test"\n', "", "source: Field required"),
        ('kind = "categorical"', 'kind = "fuzzy"', "kind: Input should be 'categorical' or 'ordinal'"),
        ('clause = "the weather is"', 'clause = ""', "clause: String should"),
        ('clause = "the weather is"', 'clause = "today, the weather is"', "clause: String should match pattern"),
        ('clause = "the weather is"', 'clause = "the weather is "', "clause: String should match pattern"),
        ('clause = "the weather is"', 'clause = "the  weather is"', "clause: String should match pattern"),
        ('source = "a test"', 'source = "a test"\ncolour = "red"', "colour: Extra inputs are not permitted"),
        ('name = "sunny"', 'name = ""', "labels.0.name: String should"),
        ('name = "sunny"', 'name = "sunny, dry"', "labels.0.name: String should match pattern"),
        ('name = "sunny"', 'name = " sunny"', "labels.0.name: String should match pattern"),
        ('name = "sunny"', 'name = "sunny "', "labels.0.name: String should match pattern"),
        ('name = "sunny"', 'name = "sunny  and dry"', "labels.0.name: String should match pattern"),
        ('name = "sunny"\n', "", "labels.0.name: Field required"),
        ('polarity = "positive"', 'polarity = "good"', "labels.0.polarity: Input should be 'positive', 'negative' or 'neutral'"),
        ('polarity = "positive"', 'colour = "yellow"', "labels.0.colour: Extra inputs are not permitted"),
        ('name = "rainy"', 'name = "sunny"', "two labels have the same name"),
        ('name = "rainy"', 'name = "Sunny"', "'Sunny' stands for both 'sunny' and 'Sunny'"),
        ('name = "rainy"', 'name = "rainy"\nsynonyms = ["Clear"]', "'Clear' stands for both 'sunny' and 'rainy'"),
        ('name = "rainy"', 'name = "rainy"\nsynonyms = ["sunny"]', "'sunny' stands for both 'sunny' and 'rainy'"),
        ('name = "rainy"', 'name = "rainy"\nvalue = 1', "did you mean kind = 'ordinal'?"),
        ('source = "a test"', 'source = "a test"\nrange = [0, 1]', "did you mean kind = 'ordinal'?"),
        ('\n[[labels]]\nname = "rainy"\n', "", "labels: Tuple should have at least 2 items"),
    ],
)
def test_a_wrong_scheme_file_is_named_with_its_field(scheme_file, old, new, message):
    assert old in GOOD
    path = scheme_file(GOOD.replace(old, new, 1))
    with pytest.raises(SchemeError) as error:
        load_scheme(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("range = [0, 2]\n", "", "an ordinal scheme needs a range, and each of its labels a value"),
        ("value = 2", "", "an ordinal scheme needs a range, and each of its labels a value"),
        ("value = 2", "value = 0", "values must rise"),
        ("value = 0\n", "value = 3\n", "values must rise"),
        ("range = [0, 2]", "range = [0, 9]", "the range is [0.0, 9.0], but the labels' values go from 0.0 to 2.0"),
        ("range = [0, 2]", "range = [0]", "range.1: Field required"),
        ("value = 2", 'value = "much"', "labels.1.value: Input should be a valid number"),
    ],
)
def test_a_wrong_ordinal_scheme_is_named_with_its_field(scheme_file, old, new, message):
    assert old in ORDINAL
    path = scheme_file(ORDINAL.replace(old, new, 1))
    with pytest.raises(SchemeError) as error:
        load_scheme(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["c'est la vie", "déjà-vu", "love/hate", "9 of 10", "喜び", "a"])
def test_labels_may_be_of_any_language(name):
    assert Label(name=name).name == name


@pytest.mark.parametrize("word", ["jooy", "Jooy", "JOOY"])
def test_a_word_that_is_no_label_is_answered_with_the_nearest_whatever_its_case(word):
    with pytest.raises(SchemeError, match=rf"'{word}' is no label of ekman6 \(did you mean 'joy'\?\): anger, disgust,"):
        load_scheme("ekman6").label_index(word)


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("xyzzy", ["joy", "fear"]) == ""
    assert did_you_mean("feer", ["joy", "fear"]) == " (did you mean 'fear'?)"
