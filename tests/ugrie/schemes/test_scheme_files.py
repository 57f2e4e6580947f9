"""Users' own scheme files: errors name the file and the field."""

import re
import tomllib

import pytest
from pydantic import ValidationError

from ugrie.schemes.scheme import Scheme, SchemeError, load_scheme

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

MAPPED = (
    GOOD.replace("[[labels]]", 'wheel = ["rainy", "sunny"]\n\n[[labels]]', 1)
    + """
[crosswalks.ekman6]
source = "a test"
unmapped = ["rainy"]

[crosswalks.ekman6.labels]
joy = ["sunny"]
"""
)


@pytest.fixture
def scheme_file(tmp_path):
    """Write weather.toml and return its path."""

    def write(text):
        path = tmp_path / "weather.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def refused(scheme_file):
    """Replace `old` by `new` in a scheme's text and check that the error names the file and contains `message`."""

    def check(text, old, new, message):
        assert old in text
        path = scheme_file(text.replace(old, new, 1))
        with pytest.raises(SchemeError) as error:
            load_scheme(path)
        assert str(error.value).startswith(path)
        assert message in str(error.value)

    return check


def test_a_users_own_scheme_is_loaded_by_its_path(scheme_file):
    scheme = load_scheme(scheme_file(GOOD))
    assert scheme.label_names == ("sunny", "rainy")
    assert scheme.labels[0].synonyms == ("bright", "clear")
    assert scheme.labels[1].polarity is None
    assert scheme.values == ()


def test_a_users_own_scheme_is_read_again_after_it_was_edited(scheme_file):
    assert load_scheme(scheme_file(GOOD)).title == "Weather"
    assert load_scheme(scheme_file(GOOD.replace('"Weather"', '"The sky"'))).title == "The sky"


def test_a_users_own_ordinal_scheme_has_its_range(scheme_file):
    scheme = load_scheme(scheme_file(ORDINAL))
    assert (scheme.range, scheme.values) == ((0.0, 2.0), (0.0, 2.0))


def test_a_users_own_scheme_has_its_wheel_and_its_crosswalks(scheme_file):
    scheme = load_scheme(scheme_file(MAPPED))
    assert scheme.wheel_distance.tolist() == [[0, 1], [1, 0]]
    assert scheme.crosswalk(load_scheme("ekman6")).tolist() == [[0, 0, 0, 1, 0, 0], [0] * 6]
    assert scheme.crosswalk(load_scheme("polarity2")).tolist() == [[0, 1], [0, 0]]


def test_a_crosswalk_may_lead_to_a_scheme_beside_it(scheme_file, tmp_path):
    (tmp_path / "wind.toml").write_text(ORDINAL.replace("weather", "wind"))
    path = scheme_file(MAPPED.replace("ekman6", "wind").replace("joy", "still"))
    assert load_scheme(path).crosswalk(load_scheme(str(tmp_path / "wind.toml"))).tolist() == [[1, 0], [0, 0]]


def test_a_scheme_is_a_value_that_can_be_a_key():
    fields = tomllib.loads(MAPPED)
    assert {Scheme.model_validate(fields): 1}[Scheme.model_validate(fields)] == 1
    with pytest.raises(ValidationError):
        Scheme.model_validate(fields).name = "other"


def test_an_unknown_scheme_is_answered_with_the_nearest_and_all_there_are():
    with pytest.raises(SchemeError, match=r"'ekmann6' \(did you mean 'ekman6'\?\); the bundled schemes are arousal, .*\.toml"):
        load_scheme("ekmann6")


def test_a_name_is_not_a_way_out_of_the_folder():
    with pytest.raises(SchemeError, match="no scheme is named"):
        load_scheme("../schemes/ekman6")


def test_a_scheme_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SchemeError, match=re.escape(f"{tmp_path / 'moods.toml'}: there is no such scheme file")):
        load_scheme(str(tmp_path / "moods.toml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not valid TOML: 'utf-8' codec can't decode"),
        (b"range = " + b"[" * 5000, "is not valid TOML: its values are nested too deeply"),
        (b"range = 1" + b"0" * 5000, "is not valid TOML: Exceeds the limit"),
    ],
)
def test_a_scheme_file_that_is_no_toml_is_named(tmp_path, content, message):
    (tmp_path / "weather.toml").write_bytes(content)
    with pytest.raises(SchemeError, match=re.escape(f"{tmp_path / 'weather.toml'} {message}")):
        load_scheme(str(tmp_path / "weather.toml"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("folder.toml", "Is a directory"), ("file/x.toml", "Not a directory"), (f"{'x' * 300}.toml", "File name too long")],
)
def test_a_scheme_file_that_can_not_be_opened_is_named(tmp_path, name, message):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SchemeError, match=f"{name}: {message}"):
        load_scheme(str(tmp_path / name))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "weather"', "name = weather", "is not valid TOML"),
        ('name = "weather"', 'name = "climate"', "the scheme's name is 'climate'"),
        ('name = "weather"', 'name = "Weather"', "name: String should match pattern"),
        ('title = "Weather"\n', "", "title: Field required"),
        ('source = "a test"\n', "", "source: Field required"),
        ('kind = "categorical"', 'kind = "fuzzy"', "kind: Input should be 'categorical' or 'ordinal'"),
        ('clause = "the weather is"', 'clause = ""', "clause: String should"),
        ('clause = "the weather is"', 'clause = "today, the weather is"', "clause: String should match pattern"),
        ('clause = "the weather is"', 'clause = "the weather is "', "clause: String should match pattern"),
        ('clause = "the weather is"', 'clause = "the  weather is"', "clause: String should match pattern"),
        ('clause = "the weather is"', 'clause = "the\\u001cweather is"', "clause: String should match pattern"),
        ('name = "weather"', f'name = "{"x" * 65}"', "name: String should have at most 64 characters"),
        ('source = "a test"', 'source = "a test"\ncolour = "red"', "colour: Extra inputs are not permitted"),
        ('source = "a test"', 'source = "a test"\nwheels = []', "wheels: Extra inputs are not permitted (did you mean 'wheel'?)"),
        ('polarity = "positive"', 'polarty = "positive"', "labels.0.polarty: Extra inputs are not permitted (did you mean 'polarity'?)"),
        ('name = "rainy"', 'name = "rainy"\nwheel = []', "labels.1.wheel: Extra inputs are not permitted here: move 'wheel' above the"),
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
        ('name = "rainy"', 'name = "rainy"\nvalue = 1', "set kind = 'ordinal'"),
        ('source = "a test"', 'source = "a test"\nrange = [0, 1]', "set kind = 'ordinal'"),
        ('\n[[labels]]\nname = "rainy"\n', "", "labels: Tuple should have at least 2 items"),
    ],
)
def test_a_wrong_scheme_file_is_named_with_its_field(refused, old, new, message):
    refused(GOOD, old, new, message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("range = [0, 2]\n", "", "an ordinal scheme needs a range, and each of its labels needs a value"),
        ("value = 2", "", "an ordinal scheme needs a range, and each of its labels needs a value"),
        ("value = 2", "value = 0", "must be in ascending order of their values"),
        ("value = 2", "value = inf", "labels.1.value: Input should be a finite number"),
        ("range = [0, 2]", "range = [nan, 2]", "range.0: Input should be a finite number"),
        ("value = 0\n", "value = 3\n", "must be in ascending order of their values"),
        ("range = [0, 2]", "range = [0, 9]", "the range is [0.0, 9.0], but the labels' values go from 0.0 to 2.0"),
        ("range = [0, 2]", "range = [0]", "range.1: Field required"),
        ("value = 2", 'value = "much"', "labels.1.value: Input should be a valid number"),
        ("range = [0, 2]", 'range = [0, 2]\nwheel = ["still", "blowing"]', "an ordinal scheme has no wheel"),
    ],
)
def test_a_wrong_ordinal_scheme_is_named_with_its_field(refused, old, new, message):
    refused(ORDINAL, old, new, message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('wheel = ["rainy", "sunny"]', 'wheel = ["rainy"]', "wheel: list each label once; 'sunny' is missing"),
        (
            'wheel = ["rainy", "sunny"]',
            'wheel = ["rainy", "sunny", "bright"]',
            "wheel: list each label once; 'sunny' is listed more than once",
        ),
        ('wheel = ["rainy", "sunny"]', 'wheel = ["rainy", "suny"]', "wheel: 'suny' is not a label of weather (did you mean 'sunny'?)"),
        (
            'source = "a test"\nunmapped',
            'sorce = "a test"\nunmapped',
            "ekman6.sorce: Extra inputs are not permitted (did you mean 'source'?)",
        ),
        ('source = "a test"\nunmapped', "unmapped", "crosswalks.ekman6.source: Field required"),
        ("joy =", "joyy =", "crosswalks.ekman6: 'joyy' is not a label of ekman6 (did you mean 'joy'?): anger, disgust"),
        ('joy = ["sunny"]', 'joy = ["suny"]', "crosswalks.ekman6: 'suny' is not a label of weather (did you mean 'sunny'?)"),
        ('joy = ["sunny"]', 'joy = ["sunny", "rainy"]', "crosswalks.ekman6: 'rainy' is both mapped and unmapped"),
        ('unmapped = ["rainy"]', "", "crosswalks.ekman6: 'rainy' is missing; map it to a label of ekman6, or list it as unmapped"),
        ("[crosswalks.ekman6.labels]\njoy", "joy", "crosswalks.ekman6.labels: Field required"),
        ("[crosswalks.ekman6]", '[crosswalks."../ekman6"]', "crosswalks.../ekman6.[key]: String should match pattern"),
        ('["sunny"]', '"sunny"', "crosswalks.ekman6.labels.joy: Input should be a valid tuple"),
    ],
)
def test_a_wrong_wheel_or_crosswalk_is_named(refused, old, new, message):
    refused(MAPPED, old, new, message)


def test_a_crosswalk_to_a_scheme_that_is_not_there_is_answered_with_the_nearest(scheme_file):
    path = scheme_file(MAPPED.replace("ekman6", "ekmann6"))
    with pytest.raises(SchemeError, match=r"crosswalks\.ekmann6: no scheme is named 'ekmann6' \(did you mean 'ekman6'\?\); name a bundled"):
        load_scheme(path)
