"""Templates: a rendered sentence is parsed back, in any case and spacing, and errors name the word."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugrie.schemes.scheme import Label, Scheme, bundled_schemes, load_scheme
from ugrie.schemes.template import Template, TemplateError

BUNDLED = tuple(load_scheme(name) for name in bundled_schemes())
WORDS = st.text(st.characters(codec="utf-8", categories=["L", "Nd"]), min_size=1, max_size=5)
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)


@st.composite
def filled(draw, schemes=BUNDLED) -> tuple[Template, dict[str, str]]:
    order = draw(st.permutations(schemes))[: draw(st.integers(1, len(schemes)))]
    return Template(tuple(order)), {scheme.name: draw(st.sampled_from(scheme.label_names)) for scheme in order}


@st.composite
def own_schemes(draw) -> list[Scheme]:
    """Draw schemes of any letters, in which no clause or label starts with another's clause."""
    count = draw(st.integers(1, 3))
    out = []
    for i in range(count):
        names = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.casefold))
        labels = tuple(Label(name=name) for name in names)
        clause = f"{'xyz'[i]}{i} {draw(NAMES)}"
        out.append(Scheme(name=f"s{i}", title="t", kind="categorical", clause=clause, source="a test", labels=labels))
    return out


@given(filled())
def test_any_subset_in_any_order_is_read_as_it_was_written(case):
    template, labels = case
    assert template.parse(template.render(labels)) == labels
    assert list(template.parse(template.render(labels))) == [scheme.name for scheme in template.schemes]


@given(st.data())
def test_schemes_of_any_language_are_read_as_they_were_written(data):
    template, labels = data.draw(filled(data.draw(own_schemes())))
    assert template.parse(template.render(labels)) == labels


@given(filled(), st.sampled_from([str.upper, str.lower, str.title, str.swapcase]))
def test_case_does_not_count(case, change):
    template, labels = case
    assert template.parse(change(template.render(labels))) == labels


@given(filled(), st.sampled_from(["  ", "\n", "\t ", "\u00a0"]))
def test_spacing_does_not_count(case, space):
    template, labels = case
    sentence = template.render(labels)
    assert template.parse(space + sentence.replace(" ", space) + space) == labels
    assert template.parse(sentence.replace(",", " ,").replace(".", " .")) == labels
    assert template.parse(sentence.removesuffix(".")) == labels


@given(filled(), st.randoms())
def test_clauses_are_read_in_any_order(case, random):
    template, labels = case
    opening, *clauses = template.render(labels).removesuffix(".").split(", ")
    random.shuffle(clauses)
    assert template.parse(", ".join([opening, *clauses]) + ".") == labels


def test_the_sentence_reads_as_the_readme_says():
    template = Template.of("polarity2", "ekman6")
    assert template.render({"polarity2": "positive", "ekman6": "joy"}) == "Overall, the mood is positive, the basic emotion is joy."


def test_a_clause_that_is_absent_is_absent():
    template = Template.of("polarity2", "ekman6")
    assert template.parse("Overall, the basic emotion is joy.") == {"ekman6": "joy"}
    assert template.parse("Overall.") == {}


def test_synonyms_are_read_and_written_as_their_label():
    template = Template.of("polarity2", "ekman6")
    assert template.parse("Overall, the mood is Good, the basic emotion is happy.") == {"polarity2": "positive", "ekman6": "joy"}
    assert template.render({"polarity2": "bad", "ekman6": "SCARED"}) == "Overall, the mood is negative, the basic emotion is fear."


def test_a_clause_that_begins_another_does_not_take_its_label(make_scheme):
    short = make_scheme("short", "the mood", "soars", "sinks")
    long = make_scheme("long", "the mood is", "high", "low")
    template = Template((short, long))
    labels = {"short": "soars", "long": "low"}
    assert template.parse(template.render(labels)) == labels
    assert Template((long, short)).parse(template.render(labels)) == labels


def test_a_label_may_begin_as_another_clause_goes_on(make_scheme):
    short = make_scheme("short", "the mood", "is odd", "is even")
    long = make_scheme("long", "the mood is", "high", "low")
    labels = {"short": "is odd", "long": "low"}
    for template in (Template((short, long)), Template((long, short))):
        assert template.parse(template.render(labels)) == labels


def test_schemes_that_read_alike_are_not_in_one_template(make_scheme):
    short = make_scheme("short", "the mood", "is High", "is odd")
    long = make_scheme("long", "the mood is", "high", "low")
    with pytest.raises(TemplateError, match="'the mood is high' can be read as short and as long: change a clause"):
        Template((short, long))


def test_letters_that_grow_when_case_is_folded_are_read(make_scheme):
    template = Template((make_scheme("size", "die Größe ist", "groß", "klein"),))
    assert template.parse("OVERALL, DIE GRÖSSE IST GROSS.") == {"size": "groß"}


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_as_a_template_error(text):
    template = Template(BUNDLED)
    for sentence in (text, f"Overall, {text}", f"Overall, the mood is {text}"):
        with contextlib.suppress(TemplateError):
            assert set(template.parse(sentence)) <= {scheme.name for scheme in BUNDLED}


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("In all, the mood is positive.", "a sentence begins with 'Overall,', but this one with 'In all'"),
        ("", "a sentence begins with 'Overall,', but this one with ''"),
        ("Overall, the moood is positive.", "'the moood is positive' is not a clause of this template (did you mean 'the mood is'?)"),
        ("Overall, the control is high.", "'the control is high' is not a clause of this template"),
        ("Overall, the mood is", "'the mood is' is not a clause of this template"),
        ("Overall, the mood ispositive.", "'the mood ispositive' is not a clause"),
        ("Overall, the mood is positive, the mood is negative.", "the sentence states polarity2 twice"),
        ("Overall, the basic emotion is jooy.", "'jooy' is not a label of ekman6 (did you mean 'joy'?): anger, disgust"),
        ("Overall, the mood is positively odd.", "'positively odd' is not a label of polarity2"),
    ],
)
def test_a_sentence_of_another_kind_is_refused_with_the_clause_or_word(sentence, message):
    with pytest.raises(TemplateError, match=re.escape(message)):
        Template.of("polarity2", "ekman6").parse(sentence)


def test_a_label_that_is_not_given_is_missed_by_name():
    with pytest.raises(TemplateError, match="no label given for ekman6, valence"):
        Template.of("polarity2", "ekman6", "valence").render({"polarity2": "positive"})


def test_a_label_of_no_scheme_is_not_written():
    with pytest.raises(TemplateError, match=r"'positiv' is not a label of polarity2 \(did you mean 'positive'\?\)"):
        Template.of("polarity2").render({"polarity2": "positiv"})


def test_a_template_has_schemes_and_each_once(make_scheme):
    with pytest.raises(TemplateError, match="at least one scheme"):
        Template(())
    with pytest.raises(TemplateError, match="two schemes of the template have the name 'ekman6'"):
        Template.of("ekman6", "ekman6")
    for clause in ("the mood is", "The Mood Is"):
        with pytest.raises(TemplateError, match="two schemes of the template have the clause 'the mood is'"):
            Template((load_scheme("polarity2"), make_scheme("mine", clause, "up", "down")))


def test_the_literals_and_labels_make_up_the_sentence():
    template = Template.of("valence", "ekman6")
    assert template.literals == ("Overall, the feeling is", ", the basic emotion is")
