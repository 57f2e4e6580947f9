"""Slots as tries: every label is a path, and the decoder reads no more before a decision than it needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from benchmarks.sentences import sentence_ids
from ugrie.model.tokenizer import SPECIAL
from ugrie.model.trie import Node, Slot, compile_template
from ugrie.schemes.template import Template, TemplateError

END = 9
LABELS = st.lists(st.lists(st.integers(4, 7), min_size=1, max_size=5).map(tuple), min_size=2, max_size=9, unique=True).map(tuple)


def test_labels_that_part_at_once_are_one_decision_and_nothing_is_read_before_it():
    slot = Slot((1,), ((4,), (5, 6), (7, 7, 7)), END)
    assert slot.branches == (Node((), (4, 5, 7)),)
    assert slot.read == ()
    assert slot.tails == slot.labels


def test_a_label_that_begins_another_is_told_apart_by_what_follows_it():
    slot = Slot((1,), ((4,), (4, 5), (6,)), END)
    assert slot.sequences == ((4, END), (4, 5), (6,))
    assert slot.branches == (Node((), (4, 6)), Node((4,), (5, END)))
    assert slot.read == ((4,),)
    assert slot.tails == ((), (5,), (6,))


def test_the_way_to_a_branch_is_read_and_the_rest_of_a_label_is_not():
    slot = Slot((1,), ((4, 4, 4, 5, 5), (4, 4, 4, 6), (7, 7)), END)
    assert slot.branches == (Node((), (4, 7)), Node((4, 4, 4), (5, 6)))
    assert slot.read == ((4,), (4, 4), (4, 4, 4))
    assert slot.tails == ((5, 5), (6,), (7, 7))


@given(labels=LABELS)
def test_what_is_read_before_the_decision_and_the_tail_make_the_label(labels):
    slot = Slot((1,), labels, END)
    for label, path, tail in zip(slot.labels, slot.on_path, slot.tails, strict=True):
        assert tuple(prefix[-1] for prefix, on in zip(slot.read, path, strict=True) if on) + tail == label


@given(labels=LABELS)
def test_every_token_read_before_the_decision_is_on_the_way_to_a_branch(labels):
    slot = Slot((1,), labels, END)
    branches = {node.prefix for node in slot.branches}
    assert all(any(branch[: len(prefix)] == prefix for branch in branches) for prefix in slot.read)
    assert branches - {()} <= set(slot.read)
    assert all(prefix[:-1] in {(), *slot.read} for prefix in slot.read)


@given(labels=LABELS)
def test_no_label_ends_where_another_goes_on(labels):
    sequences = Slot((1,), labels, END).sequences
    assert not any(a != b and b[: len(a)] == a for a in sequences for b in sequences)


@given(labels=LABELS, seed=st.integers(0, 1000))
def test_label_probabilities_add_up_to_one_whatever_the_choices_probabilities(labels, seed):
    slot, draw = Slot((1,), labels, END), np.random.default_rng(seed)
    chances = np.concatenate([draw.dirichlet(np.ones(len(node.children))) for node in slot.branches])
    assert slot.edges.shape == (len(labels), len(chances))
    assert np.exp(slot.edges @ np.log(chances)).sum() == pytest.approx(1)


@given(labels=LABELS)
def test_labels_take_different_ways(labels):
    edges = Slot((1,), labels, END).edges
    assert len(np.unique(edges, axis=0)) == len(labels)


@given(labels=LABELS)
def test_a_label_takes_at_most_one_choice_of_a_branch(labels):
    slot = Slot((1,), labels, END)
    for node in slot.branches:
        taken = slot.choices(node)
        assert taken.shape == (len(labels), len(node.children))
        assert (taken.sum(1) <= 1).all()
        assert (taken.sum(0) >= 1).all()


@pytest.mark.parametrize("kind", ["phrases", "words", "bpe"])
def test_filled_slots_are_the_tokens_of_the_sentence(nested, tokenizers, kind):
    template = Template((nested[3], nested[1], nested[0]))
    tokenizer = tokenizers[kind](nested)
    slots = compile_template(template, tokenizer)
    for choice in [(0, 0, 0), (3, 2, 2), (5, 4, 1)]:
        labels = {scheme.name: scheme.label_names[i] for scheme, i in zip(template.schemes, choice, strict=True)}
        whole = tokenizer.encode(template.render(labels), add_special_tokens=False).ids
        assert [*sentence_ids(slots, choice), slots[-1].end] == whole


@pytest.mark.parametrize("kind", ["phrases", "words", "bpe"])
def test_a_slot_ends_with_the_token_that_follows_its_label(nested, tokenizers, kind):
    tokenizer = tokenizers[kind](nested)
    first, last = compile_template(Template((nested[3], nested[0])), tokenizer)
    assert first.end == last.literal[0]
    assert [last.end] == tokenizer.encode(".", add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["phrases", "words"])
def test_a_label_the_tokenizer_has_no_word_for_is_named(nested, tokenizers, make_scheme, kind):
    stranger = make_scheme("calmness", "the mood is", "calm", "furious")
    with pytest.raises(TemplateError, match="no token for 'furious' of calmness: it was not trained"):
        compile_template(Template((stranger,)), tokenizers[kind](nested))


@pytest.mark.parametrize("kind", ["phrases", "words"])
def test_a_clause_the_tokenizer_has_no_words_for_is_refused(nested, tokenizers, make_scheme, kind):
    stranger = make_scheme("calmness", "whoever looks feels", "calm", "tense")
    with pytest.raises(TemplateError, match="of calmness: it was not trained"):
        compile_template(Template((stranger,)), tokenizers[kind](nested))


def test_labels_of_the_same_tokens_are_refused(make_scheme, tokenizers):
    scheme = make_scheme("luck", "it looks", "happy-go", "happy go")
    tokenizer = tokenizers["words"]([scheme], normalizers.Replace("-", " "))
    with pytest.raises(TemplateError, match="two labels of luck have the same tokens"):
        compile_template(Template((scheme,)), tokenizer)


def test_a_tokenizer_that_joins_a_label_to_the_full_stop_is_refused(make_scheme):
    """The label's tokens would differ from those in the sentence."""
    scheme = make_scheme("mood", "it is", "calm", "tense")
    split = pre_tokenizers.Split(Regex(r" ?\w+\.?|[,.]"), behavior="isolated")
    words = ["Overall", ",", " it", " is", " calm", " tense", " calm.", " tense.", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    with pytest.raises(TemplateError, match="'calm' of mood is tokenized differently in a sentence"):
        compile_template(Template((scheme,)), tokenizer)
