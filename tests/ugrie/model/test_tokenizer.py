"""The phrase tokenizer: few tokens, an ordinary file, and no match in the middle of a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ugrie.model.tokenizer import SPECIAL, UNKNOWN, phrase_tokenizer
from ugrie.schemes.scheme import bundled_schemes, load_scheme
from ugrie.schemes.template import Template

BUNDLED = tuple(load_scheme(name) for name in bundled_schemes())
TOKENIZER = phrase_tokenizer(BUNDLED)


@st.composite
def sentences(draw) -> tuple[Template, str]:
    order = draw(st.permutations(BUNDLED))[: draw(st.integers(1, len(BUNDLED)))]
    template = Template(tuple(order))
    return template, template.render({scheme.name: draw(st.sampled_from(scheme.label_names)) for scheme in order})


@given(sentences())
def test_a_sentence_is_two_tokens_a_clause_its_opening_and_its_closing(case):
    template, sentence = case
    ids = TOKENIZER.encode(sentence).ids
    assert len(ids) == 1 + 1 + 2 * len(template.schemes) + 1 + 1
    assert TOKENIZER.token_to_id(UNKNOWN) not in ids


@given(sentences())
def test_decoding_gives_the_sentence_back(case):
    _, sentence = case
    ids = TOKENIZER.encode(sentence).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == sentence
    assert (ids[0], ids[-1]) == (0, 2)


def test_specials_have_the_ids_they_have_in_bart():
    ids = tuple(map(TOKENIZER.token_to_id, SPECIAL))
    assert ids == (0, 1, 2, 3)


def test_phrases_that_schemes_share_are_one_token():
    words = {f" {name}" for scheme in BUNDLED for name in scheme.label_names} | {f", {scheme.clause}" for scheme in BUNDLED}
    assert TOKENIZER.get_vocab_size() == len(words | {"Overall", "."}) + len(SPECIAL)


@pytest.mark.parametrize("label", ["a", "a very", "a very happy", "a very happy day", "a very long day"])
def test_a_label_that_others_begin_with_is_a_token_of_its_own(nested, label):
    tokenizer = phrase_tokenizer(nested)
    tokens = tokenizer.encode(f", this is {label}.", add_special_tokens=False).tokens
    assert tokens == [", this is", f" {label}", "."]


def test_a_word_that_only_begins_like_a_label_is_unknown(nested):
    tokenizer = phrase_tokenizer(nested)
    tokens = tokenizer.encode(", the mood is calmly.", add_special_tokens=False).tokens
    assert tokens[1] == "<unk>"


def test_labels_with_hyphens_apostrophes_and_accents_are_tokens(make_scheme):
    scheme = make_scheme("odd", "on dit", "déjà-vu", "déjà", "c'est la vie", "love/hate", "love", "9 of 10")
    tokenizer = phrase_tokenizer([scheme])
    for name in scheme.label_names:
        sentence = Template((scheme,)).render({"odd": name})
        assert tokenizer.encode(sentence, add_special_tokens=False).tokens == ["Overall", ", on dit", f" {name}", "."]


def test_the_file_holds_all_of_the_tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    again = Tokenizer.from_file(str(path))
    sentence = Template(BUNDLED).render({scheme.name: scheme.label_names[-1] for scheme in BUNDLED})
    assert again.encode(sentence).ids == TOKENIZER.encode(sentence).ids
    assert again.get_vocab() == TOKENIZER.get_vocab()
