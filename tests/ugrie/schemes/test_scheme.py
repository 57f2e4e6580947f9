"""Bundled schemes: their labels, wheels and crosswalks are as published."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugrie.model.checkpoint import bundled_checkpoints, find, read_config
from ugrie.schemes.scheme import FOLDER, Label, Scheme, SchemeError, bundled_schemes, load_scheme
from ugrie.text import did_you_mean

BUNDLED = [load_scheme(name) for name in bundled_schemes()]
CROSSWALKS = [(scheme, target) for scheme in BUNDLED for target in scheme.crosswalks]

PUBLISHED = {
    "polarity2": "negative positive",
    "polarity3": "negative neutral positive",
    "ekman6": "anger disgust fear joy sadness surprise",
    "ekman7": "anger disgust fear joy sadness surprise neutral",
    "mikels8": "amusement anger awe contentment disgust excitement fear sadness",
    "plutchik8": "joy trust fear surprise sadness disgust anger anticipation",
    "parrott6": "love joy surprise anger sadness fear",
    "unbiasedemo6": "anger fear joy love sadness surprise",
    "artemis9": "amusement awe contentment excitement anger disgust fear sadness something_else",
    "webemo25": "affection cheerfulness confusion contentment disappointment disgust enthrallment envy exasperation gratitude horror "
    "irritability lust neglect nervousness optimism pride rage relief sadness shame suffering surprise sympathy zest",
    "emotic26": "affection anger annoyance anticipation aversion confidence disapproval disconnection disquietment doubt/confusion "
    "embarrassment engagement esteem excitement fatigue fear happiness pain peace pleasure sadness sensitivity suffering surprise "
    "sympathy yearning",
    "goemotions27": "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval disgust "
    "embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief remorse sadness surprise",
}
ORDINALS = {"valence", "arousal", "dominance"}


def test_the_emotion_models_that_are_promised_are_bundled():
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(bundled_schemes()) == PUBLISHED.keys() | ORDINALS


@pytest.mark.parametrize("scheme", BUNDLED, ids=lambda scheme: scheme.name)
def test_a_bundled_scheme_says_what_it_is(scheme):
    assert scheme.title
    assert re.search(r"\b(19|20)\d\d\b", scheme.source)
    assert len({label.casefold() for label in scheme.label_names}) == len(scheme.labels) >= 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_labels_are_the_published_ones_in_their_order(name):
    assert load_scheme(name).label_names == tuple(label.replace("_", " ") for label in PUBLISHED[name].split())


@pytest.mark.parametrize("name", bundled_schemes())
def test_every_word_of_a_bundled_scheme_finds_its_label(name):
    scheme = load_scheme(name)
    for i, label in enumerate(scheme.labels):
        for word in (label.name, *label.synonyms):
            assert scheme.label_index(word) == scheme.label_index(word.upper()) == i


def test_no_bundled_clause_begins_another_so_that_all_schemes_fit_one_sentence():
    assert not [(a.name, b.name) for a in BUNDLED for b in BUNDLED if a is not b and f"{b.clause} ".startswith(f"{a.clause} ")]


@pytest.mark.parametrize("name", bundled_checkpoints())
def test_a_bundled_checkpoint_knows_its_schemes_as_they_are(name):
    for own in read_config(find(name)).schemes:
        bundled = load_scheme(own.name)
        assert (own.clause, own.label_names, own.values) == (bundled.clause, bundled.label_names, bundled.values)


@pytest.mark.parametrize("scheme", BUNDLED, ids=lambda scheme: scheme.name)
def test_a_scheme_survives_json_as_a_checkpoint_keeps_it(scheme):
    assert Scheme.model_validate_json(scheme.model_dump_json(exclude_none=True)) == scheme


@pytest.mark.parametrize("name", sorted(ORDINALS))
def test_bundled_ordinal_schemes_have_nine_even_steps(name):
    scheme = load_scheme(name)
    assert scheme.values == tuple(map(float, range(1, 10)))
    assert scheme.range == (1.0, 9.0)


def test_polarity_and_value_of_a_label_agree():
    for label in load_scheme("valence").labels:
        assert label.polarity == ("negative" if label.value < 5 else "positive" if label.value > 5 else "neutral")


def test_surprise_and_the_ambiguous_have_no_polarity():
    assert {label.polarity for scheme in BUNDLED for label in scheme.labels if label.name == "surprise"} == {None}
    polarities = [label.polarity for label in load_scheme("goemotions27").labels]
    assert [polarities.count(p) for p in ("positive", "negative", None)] == [12, 11, 4]


# Wheels


@given(st.data())
def test_steps_round_a_wheel_are_a_distance_that_its_order_alone_decides(data):
    names = data.draw(st.lists(st.text("abcd", min_size=1), min_size=2, max_size=9, unique=True))
    wheel = data.draw(st.permutations(names))
    scheme = Scheme(name="s", title="t", kind="categorical", clause="c", source="a test", labels=[{"name": n} for n in names], wheel=wheel)
    steps = scheme.wheel_distance
    for i, a in enumerate(wheel):
        for j, b in enumerate(wheel):
            assert steps[names.index(a), names.index(b)] == min((i - j) % len(wheel), (j - i) % len(wheel))


def test_mikels_wheel_is_that_of_zhao_et_al():
    scheme = load_scheme("mikels8")
    steps = dict(zip(scheme.label_names, scheme.wheel_distance[scheme.label_index("excitement")], strict=True))
    assert steps == {"excitement": 0, "awe": 1, "fear": 1, "contentment": 2, "sadness": 2, "amusement": 3, "disgust": 3, "anger": 4}


def test_opposites_on_plutchiks_wheel_are_farthest_apart():
    scheme = load_scheme("plutchik8")
    opposites = {(scheme.label_names[i], scheme.label_names[j]) for i, j in np.argwhere(scheme.wheel_distance == 4)}
    pairs = {("joy", "sadness"), ("trust", "disgust"), ("fear", "anger"), ("surprise", "anticipation")}
    assert opposites == pairs | {(b, a) for a, b in pairs}


def test_a_scheme_without_a_wheel_has_no_steps():
    with pytest.raises(SchemeError, match="ekman6 has no wheel"):
        _ = load_scheme("ekman6").wheel_distance


# Crosswalks


def mapping(scheme, target):
    """Return {label: {target's label: share}} for the labels that are mapped."""
    matrix = load_scheme(scheme).crosswalk(load_scheme(target))
    names, others = load_scheme(scheme).label_names, load_scheme(target).label_names
    return {names[i]: {others[j]: float(matrix[i, j]) for j in np.flatnonzero(matrix[i])} for i in np.flatnonzero(matrix.any(1))}


@pytest.mark.parametrize(("scheme", "target"), CROSSWALKS, ids=[f"{scheme.name}-{target}" for scheme, target in CROSSWALKS])
def test_a_bundled_crosswalk_shares_out_each_label_that_is_mapped(scheme, target):
    stated, matrix = scheme.crosswalks[target], scheme.crosswalk(load_scheme(target))
    assert stated.source
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(scheme.labels), len(load_scheme(target).labels))
    np.testing.assert_array_equal(matrix.sum(1), [name not in stated.unmapped for name in scheme.label_names])


def test_goemotions_is_mapped_to_ekman_as_published():
    assert mapping("goemotions27", "ekman6") == {
        label: {to: 1}
        for to, labels in {
            "anger": "anger annoyance disapproval",
            "disgust": "disgust",
            "fear": "fear nervousness",
            "joy": "joy amusement approval excitement gratitude love optimism relief pride admiration desire caring",
            "sadness": "sadness disappointment embarrassment grief remorse",
            "surprise": "surprise realization confusion curiosity",
        }.items()
        for label in labels.split()
    }


def test_webemo_is_mapped_through_parrotts_tree():
    ekman, parrott = mapping("webemo25", "ekman6"), mapping("webemo25", "parrott6")
    assert parrott.keys() - ekman.keys() == {"affection", "gratitude", "lust"} == {k for k, v in parrott.items() if v == {"love": 1}}
    assert {label for label in ekman if ekman[label] != parrott[label]} == {"disgust"}
    assert set(load_scheme("webemo25").label_names) - parrott.keys() == {"confusion"}


def test_a_label_of_two_is_shared_out():
    assert mapping("mikels8", "plutchik8")["awe"] == {"fear": 0.5, "surprise": 0.5}


@pytest.mark.parametrize("target", ["polarity2", "polarity3"])
@pytest.mark.parametrize("scheme", [scheme for scheme in BUNDLED if scheme.name not in ("webemo25", "arousal", "dominance")])
def test_polarity_leads_where_no_crosswalk_is_stated(scheme, target):
    polarities = {label.name: label.polarity for label in scheme.labels}
    known = load_scheme(target).label_names
    assert mapping(scheme.name, target) == {name: {p: 1} for name, p in polarities.items() if p in known}


def test_a_stated_crosswalk_goes_before_polarity():
    assert mapping("webemo25", "polarity2")["surprise"] == {"positive": 1}
    assert "surprise" not in mapping("webemo25", "polarity3")


@pytest.mark.parametrize(
    ("scheme", "target", "message"),
    [
        ("mikels8", "emotic26", "mikels8 has no crosswalk to emotic26; it has plutchik8, polarity2, polarity3"),
        ("webemo25", "mikels8", "webemo25 has no crosswalk to mikels8; it has ekman6, parrott6, polarity2, polarity3"),
        ("arousal", "polarity2", "arousal has no crosswalk to polarity2; it has none"),
    ],
)
def test_a_crosswalk_that_is_not_there_is_answered_with_those_that_are(scheme, target, message):
    with pytest.raises(SchemeError, match=f"^{message}$"):
        load_scheme(scheme).crosswalk(load_scheme(target))


@pytest.mark.parametrize("name", ["c'est la vie", "déjà-vu", "love/hate", "9 of 10", "喜び", "a"])
def test_labels_may_be_of_any_language(name):
    assert Label(name=name).name == name


@pytest.mark.parametrize("word", ["jooy", "Jooy", "JOOY"])
def test_a_word_that_is_no_label_is_answered_with_the_nearest_whatever_its_case(word):
    with pytest.raises(SchemeError, match=rf"'{word}' is not a label of ekman6 \(did you mean 'joy'\?\): anger, disgust,"):
        load_scheme("ekman6").label_index(word)


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("xyzzy", ["joy", "fear"]) == ""
    assert did_you_mean("feer", ["joy", "fear"]) == " (did you mean 'fear'?)"
