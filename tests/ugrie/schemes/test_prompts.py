"""The prompts of a scheme's labels."""

from ugrie.schemes.prompts import TEMPLATES, prompts_of
from ugrie.schemes.scheme import Label, load_scheme


def test_each_word_of_a_label_has_a_prompt_from_each_template(make_scheme):
    labels = (Label(name="calm", synonyms=("at {peace}", "calm")), Label(name="tense"))
    calm, tense = prompts_of(make_scheme("mood", "the mood is {}", labels=labels))
    assert calm[1] == (
        "at {peace}.",
        "the mood is {} at {peace}.",
        "a photo. the mood is {} at {peace}.",
        "a picture in which the mood is {} at {peace}.",
    )
    assert [len(calm), len(tense), len(tense[0])] == [2, 1, len(TEMPLATES)]


def test_an_ordinal_scheme_has_the_prompts_of_its_ends():
    lowest, highest = prompts_of(load_scheme("valence"))
    assert (lowest[0][0], highest[0][0]) == ("extremely unpleasant.", "extremely pleasant.")
