"""Slot filling is exact: it agrees with transformers' constrained generation and with scoring whole sentences."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ugrie.libraries import BartForConditionalGeneration
from ugrie.model.slots import Filled, Opinion, SlotFiller
from ugrie.model.trie import Slot, compile_template
from ugrie.schemes.template import Template

ORDERS = st.permutations(range(4)).flatmap(lambda order: st.integers(1, 4).map(lambda count: order[:count]))
SEEDS = st.integers(0, 2**31)


def allowed_after(prefix: tuple[int, ...], slot: Slot) -> list[int]:
    """Return the tokens that may follow a prefix; the slot's end follows every label."""
    return sorted({(*label, slot.end)[len(prefix)] for label in slot.labels if (*label, slot.end)[: len(prefix)] == prefix})


def by_beam_search(
    bart: BartForConditionalGeneration, slots: Sequence[Slot], start: Sequence[int], encoded: Tensor
) -> list[dict[int, float]]:
    """Fill one image's slots with `bart.generate`, a beam per label: return each slot's log-probabilities of all labels."""
    written = list(start)
    results = []
    eos = bart.config.eos_token_id
    for slot in slots:
        written += slot.literal
        prompt = len(written)
        paths = {(*label, slot.end, eos): i for i, label in enumerate(slot.labels)}

        def allowed(_: int, ids: Tensor, prompt: int = prompt, paths: dict = paths) -> list[int]:
            so_far = tuple(ids.tolist()[prompt:])
            follow = sorted({path[len(so_far)] for path in paths if len(path) > len(so_far) and path[: len(so_far)] == so_far})
            return follow or [eos]  # beams that no label fills have a probability of zero, but must continue

        out = bart.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded[None]),
            decoder_input_ids=torch.tensor([written]),
            num_beams=len(slot.labels),
            num_return_sequences=len(slot.labels),
            do_sample=False,
            length_penalty=0.0,
            max_new_tokens=max(map(len, paths)),
            prefix_allowed_tokens_fn=allowed,
            renormalize_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
        )
        scores = {}
        for ids, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
            path = tuple(ids[prompt : ids.index(eos, prompt) + 1])
            scores[paths[path]] = score
        results.append(scores)
        written += slot.labels[max(scores, key=scores.__getitem__)]
    return results


def by_scoring_sentences(
    bart: BartForConditionalGeneration,
    slots: Sequence[Slot],
    start: Sequence[int],
    encoded: Tensor,
    opinions: Sequence[Opinion | None] | None = None,
    signs: Sequence[np.ndarray] | None = None,
) -> Filled:
    """Score the sentence up to every label by a plain forward pass, with a softmax over the allowed tokens at each position.

    With opinions, a label's probability is the weighted geometric mean of BART's and the opinion's. With `signs`, a label whose sign in any
    group is the opposite of one before it is not written.
    """
    written = [list(start) for _ in encoded]
    chosen: list[list[int]] = [[] for _ in encoded]
    results = Filled([], [])
    with torch.inference_mode():
        for position, (slot, opinion) in enumerate(zip(slots, opinions or [None] * len(slots), strict=True)):
            prompts = [[*w, *slot.literal] for w in written]
            sentences = [torch.tensor([*prompt, *label, slot.end]) for prompt in prompts for label in slot.labels]
            ids = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=1)
            repeated = BaseModelOutput(last_hidden_state=encoded.repeat_interleave(len(slot.labels), 0))
            logits = bart(encoder_outputs=repeated, decoder_input_ids=ids, use_cache=False).logits
            scores = torch.zeros(len(encoded), len(slot.labels))
            for image, prompt in enumerate(prompts):
                for i, label in enumerate(slot.labels):
                    path = (*label, slot.end)
                    for depth, token in enumerate(path):
                        may = allowed_after(path[:depth], slot)
                        row = logits[image * len(slot.labels) + i, len(prompt) + depth - 1, may]
                        scores[image, i] += row.log_softmax(-1)[may.index(token)]
            if opinion is not None:
                mixed = scores.exp() ** (1 - opinion.share) * opinion.log_probs.exp() ** opinion.share
                scores = (mixed / mixed.sum(1, keepdim=True)).log()
            for image, so_far in enumerate(chosen):
                likely = scores[image].argsort(descending=True, stable=True).tolist()
                so_far.append(next(label for label in likely if signs is None or agree([*so_far, label], signs)))
            results.log_probs.append(scores)
            results.labels.append(torch.tensor([labels[position] for labels in chosen]))
            written = [[*prompt, *slot.labels[labels[position]]] for prompt, labels in zip(prompts, chosen, strict=True)]
    return results


def agree(labels: Sequence[int], signs: Sequence[np.ndarray]) -> bool:
    """Return whether no two labels of the first slots have opposite signs in a group."""
    stated = np.array([sign[:, label] for sign, label in zip(signs, labels, strict=False)])  # [slots, groups]
    return not ((stated > 0).any(0) & (stated < 0).any(0)).any()


def assert_same(ours: Filled, theirs: Filled, tolerance: float = 1e-4) -> None:
    for mine, other in zip(ours.log_probs, theirs.log_probs, strict=True):
        torch.testing.assert_close(mine, other, atol=tolerance, rtol=0)
    for mine, other in zip(ours.labels, theirs.labels, strict=True):
        assert mine.tolist() == other.tolist()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(order=ORDERS, images=st.integers(1, 9), seed=SEEDS)
def test_every_subset_and_order_is_scored_as_its_sentences_are(language, order, images, seed):
    slots, encoded = language.slots(order), language.encoded(images, seed)
    ours = SlotFiller(language.bart, slots, language.start).fill(encoded)
    assert_same(ours, by_scoring_sentences(language.bart, slots, language.start, encoded))


def opinions_on(slots: Sequence[Slot], shares: Sequence[float], images: int, seed: int) -> list[Opinion]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Opinion((3 * torch.randn(images, len(slot.labels), generator=generator)).log_softmax(-1), share)
        for slot, share in zip(slots, shares, strict=True)
    ]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(order=ORDERS, images=st.integers(1, 9), seed=SEEDS, shares=st.lists(st.sampled_from([0, 0.3, 0.75, 1]), min_size=4, max_size=4))
def test_a_pool_is_the_weighted_geometric_mean_given_the_labels_it_chose_before(language, order, images, seed, shares):
    slots, encoded = language.slots(order), language.encoded(images, seed)
    opinions = opinions_on(slots, shares[: len(slots)], images, seed)
    ours = SlotFiller(language.bart, slots, language.start).fill(encoded, opinions)
    assert_same(ours, by_scoring_sentences(language.bart, slots, language.start, encoded, opinions))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(order=ORDERS, images=st.integers(1, 9), seed=SEEDS, groups=st.integers(1, 2))
def test_a_label_does_not_contradict_those_before_and_later_slots_read_it(language, order, images, seed, groups):
    """Each slot's labels have signs in one of the groups, as slot_signs gives them."""
    slots, encoded = language.slots(order), language.encoded(images, seed)
    rng = np.random.default_rng(seed)
    signs = [np.zeros((groups, len(slot.labels)), np.float32) for slot in slots]
    for sign in signs:
        sign[rng.integers(groups)] = rng.permutation([1, -1, *rng.integers(-1, 2, sign.shape[1] - 2)])
    opinions = opinions_on(slots, [0.5] * len(slots), images, seed)
    ours = SlotFiller(language.bart, slots, language.start, signs).fill(encoded, opinions)
    assert_same(ours, by_scoring_sentences(language.bart, slots, language.start, encoded, opinions, signs))


def test_a_label_that_contradicts_is_left_out_of_the_sentence_and_keeps_its_probability(language):
    slots, encoded = language.slots([0, 1, 2]), language.encoded(64)
    opinions = opinions_on(slots, [0.8] * 3, 64, seed=0)  # so that every label is some image's most likely
    alone = SlotFiller(language.bart, slots, language.start).fill(encoded, opinions)
    signs = [np.array([[1, -1, *[0] * (len(slot.labels) - 2)]], np.float32) for slot in slots]
    ours = SlotFiller(language.bart, slots, language.start, signs).fill(encoded, opinions)
    assert all(agree(labels, signs) for labels in zip(*(labels.tolist() for labels in ours.labels), strict=True))
    assert torch.equal(ours.log_probs[0], alone.log_probs[0])
    torch.testing.assert_close(ours.log_probs[1], alone.log_probs[1])
    moved = ours.labels[1] != alone.labels[1]
    assert 0 < moved.sum() < len(encoded)
    torch.testing.assert_close(ours.log_probs[2][~moved], alone.log_probs[2][~moved])
    assert (ours.log_probs[2][moved] - alone.log_probs[2][moved]).abs().amax(1).min() > 1e-4


def test_a_pools_choice_is_what_later_slots_read(language):
    """An opinion that overrules BART in the first slot changes what BART says in the second."""
    slots, encoded = language.slots([0, 1]), language.encoded(4)
    filler = SlotFiller(language.bart, slots, language.start)
    bart = filler.fill(encoded).log_probs
    other = (bart[0].argmax(1) + 1) % bart[0].shape[1]
    sure = torch.full_like(bart[0], -20.0).scatter(1, other[:, None], 0.0).log_softmax(-1)
    overruled = filler.fill(encoded, [Opinion(sure, 1.0), Opinion(torch.zeros_like(bart[1]), 0.0)]).log_probs
    assert overruled[0].argmax(1).tolist() == other.tolist()
    assert (overruled[1] - bart[1]).abs().max() > 1e-3


@settings(deadline=None, max_examples=5, derandomize=True)
@given(order=ORDERS, images=st.integers(1, 3), seed=SEEDS)
def test_constrained_beam_search_finds_the_same_labels_and_probabilities(language, order, images, seed):
    slots, encoded = language.slots(order), language.encoded(images, seed)
    ours = SlotFiller(language.bart, slots, language.start).fill(encoded).log_probs
    for i, image in enumerate(encoded):
        for scores, theirs in zip(ours, by_beam_search(language.bart, slots, language.start, image), strict=True):
            assert sorted(theirs) == list(range(scores.shape[1]))
            assert int(scores[i].argmax()) == max(theirs, key=theirs.__getitem__)
            np.testing.assert_allclose(scores[i].numpy(), [theirs[k] for k in sorted(theirs)], atol=1e-4)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(order=ORDERS, images=st.integers(2, 9), seed=SEEDS)
def test_an_image_reads_the_same_alone_and_in_any_batch(language, order, images, seed):
    """In single precision to the promised 1e-4, since processors round a batch's sums in their own order; in double to 1e-6."""
    for bart, tolerance in ((language.bart, 1e-4), (copy.deepcopy(language.bart).double(), 1e-6)):
        encoded = language.encoded(images, seed).to(bart.dtype)
        filler = SlotFiller(bart, language.slots(order), language.start)
        together, backwards = filler.fill(encoded), filler.fill(encoded.flip(0))
        for i in range(images):
            alone = probabilities(filler.fill(encoded[i : i + 1]), slice(None))
            assert_same(probabilities(together, slice(i, i + 1)), alone, tolerance)
            assert_same(probabilities(backwards, slice(images - 1 - i, images - i)), alone, tolerance)


def probabilities(filled: Filled, images: slice) -> Filled:
    """Return some images' labels, and their probabilities in place of the logarithms."""
    return Filled([scores[images].exp() for scores in filled.log_probs], [labels[images] for labels in filled.labels])


def test_in_double_precision_the_batch_changes_nothing_that_single_precision_can_tell(language, make_bart):
    """Up to rounding: a leak from another image of the batch would be far larger."""
    bart = make_bart(language.tokenizer.get_vocab_size()).double()
    slots, encoded = language.slots([3, 0, 1, 2]), language.encoded(33).double()
    filler = SlotFiller(bart, slots, language.start)
    together = filler.fill(encoded).log_probs
    assert together[0].dtype == torch.float32
    for i in range(len(encoded)):
        for scores, alone in zip(together, filler.fill(encoded[i : i + 1]).log_probs, strict=True):
            torch.testing.assert_close(scores[i : i + 1], alone, atol=2e-6, rtol=1e-6)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(order=ORDERS, seed=SEEDS)
def test_the_probabilities_of_a_slot_add_up_to_one(language, order, seed):
    for scores in SlotFiller(language.bart, language.slots(order), language.start).fill(language.encoded(5, seed)).log_probs:
        torch.testing.assert_close(scores.exp().sum(1), torch.ones(5), atol=1e-5, rtol=0)
        assert (scores <= 1e-6).all()


def test_images_of_one_batch_may_choose_labels_of_different_lengths(language):
    """The batches above prove something only if the lengths of their sentences differ."""
    slots, encoded = language.slots([3, 0, 1, 2]), language.encoded(64)
    ours = SlotFiller(language.bart, slots, language.start).fill(encoded)
    choices = zip(*(labels.tolist() for labels in ours.labels), strict=True)
    lengths = {sum(len(slot.labels[i]) for slot, i in zip(slots, row, strict=True)) for row in choices}
    assert len(lengths) >= (4 if max(len(label) for slot in slots for label in slot.labels) > 1 else 1)
    assert_same(ours, by_scoring_sentences(language.bart, slots, language.start, encoded))


def test_a_later_slot_is_read_after_the_label_chosen_before_it(language):
    """For two images that differ in the first label alone, the second slot must differ from the slot filled on its own."""
    encoded = language.encoded(16)
    after = SlotFiller(language.bart, language.slots([0, 1]), language.start).fill(encoded).log_probs[1]
    alone = SlotFiller(language.bart, language.slots([1]), language.start).fill(encoded).log_probs[0]
    assert (after - alone).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize(
    "shape",
    [
        {"scale_embedding": True},
        {"activation_function": "relu"},
        {"decoder_layers": 1, "decoder_attention_heads": 1},
        {"decoder_layers": 3, "d_model": 32, "decoder_attention_heads": 8},
    ],
    ids=str,
)
def test_barts_of_other_shapes_are_read_as_they_are(language, make_bart, shape):
    bart = make_bart(
        language.tokenizer.get_vocab_size(), **shape
    ).double()  # in single precision, deep ones would differ in the fifth digit
    slots = language.slots([1, 3, 0])
    encoded = torch.randn(4, 3, bart.config.d_model, generator=torch.Generator().manual_seed(1)).double()
    assert_same(SlotFiller(bart, slots, language.start).fill(encoded), by_scoring_sentences(bart, slots, language.start, encoded))


def test_a_sentence_may_begin_with_several_specials(language):
    """BART's published checkpoints force a <s> after </s>."""
    slots, encoded = language.slots([2, 0]), language.encoded(3)
    ours = SlotFiller(language.bart, slots, (2, 0)).fill(encoded)
    assert_same(ours, by_scoring_sentences(language.bart, slots, (2, 0), encoded))
    assert (ours.log_probs[0] - SlotFiller(language.bart, slots, (2,)).fill(encoded).log_probs[0]).abs().max() > 1e-3


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_prefix_may_have_any_length(language, length):
    slots, encoded = language.slots([0, 3]), language.encoded(3, length=length)
    ours = SlotFiller(language.bart, slots, language.start).fill(encoded)
    assert_same(ours, by_scoring_sentences(language.bart, slots, language.start, encoded))


def test_two_labels_are_enough_and_single_tokens_need_no_tree(make_scheme, tokenizers, make_bart):
    scheme = make_scheme("two", "it is", "so", "so so")
    tokenizer = tokenizers["phrases"]([scheme])
    bart = make_bart(tokenizer.get_vocab_size())
    slots = compile_template(Template((scheme,)), tokenizer)
    encoded = torch.randn(4, 2, 16, generator=torch.Generator().manual_seed(3))
    assert_same(SlotFiller(bart, slots, (2,)).fill(encoded), by_scoring_sentences(bart, slots, (2,), encoded))


def test_a_filler_reads_the_weights_the_bart_has_now(language, make_bart):
    """Training fills slots between its steps, after weights have changed."""
    bart = make_bart(language.tokenizer.get_vocab_size(), seed=2)
    slots, encoded = language.slots([1, 0]), language.encoded(3)
    filler = SlotFiller(bart, slots, language.start)
    before = filler.fill(encoded).log_probs
    with torch.no_grad():
        for weight in bart.parameters():
            weight.mul_(1.3)
    after = filler.fill(encoded)
    assert (before[0] - after.log_probs[0]).abs().max() > 1e-3
    assert_same(after, by_scoring_sentences(bart, slots, language.start, encoded))


def test_filling_again_gives_the_same_to_the_bit(language):
    encoded = language.encoded(5)
    filler = SlotFiller(language.bart, language.slots([0, 1, 2, 3]), language.start)
    assert all(torch.equal(a, b) for a, b in zip(filler.fill(encoded).log_probs, filler.fill(encoded).log_probs, strict=True))


def test_a_template_too_long_for_its_bart_is_refused_before_it_is_read(language, make_bart):
    slots = language.slots([0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"may need \d+ tokens, but this BART reads 8"):
        SlotFiller(make_bart(language.tokenizer.get_vocab_size(), max_position_embeddings=8), slots, language.start)
    SlotFiller(language.bart, slots, language.start)


def test_the_longest_sentence_that_fits_is_read(language, make_bart):
    """A BART with exactly as many positions as the longest filled sentence needs."""
    slots = language.slots([0, 3])
    longest = len(language.start) + sum(len(slot.literal) + len(slot.read) + max(map(len, slot.tails)) for slot in slots)
    bart = make_bart(language.tokenizer.get_vocab_size(), max_position_embeddings=longest)
    for scores in SlotFiller(bart, slots, language.start).fill(language.encoded(9)).log_probs:
        torch.testing.assert_close(scores.exp().sum(1), torch.ones(9), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="may need"):
        SlotFiller(make_bart(language.tokenizer.get_vocab_size(), max_position_embeddings=longest - 1), slots, language.start)


def test_the_chosen_labels_fill_a_sentence_its_template_reads(language):
    template = Template(language.schemes)
    slots = compile_template(template, language.tokenizer)
    choices = [labels.tolist() for labels in SlotFiller(language.bart, slots, language.start).fill(language.encoded(6)).labels]
    for row in zip(*choices, strict=True):
        labels = {scheme.name: scheme.label_names[i] for scheme, i in zip(template.schemes, row, strict=True)}
        assert template.parse(template.render(labels)) == labels
