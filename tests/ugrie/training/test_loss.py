"""The loss equals the slot filler's cross-entropy of the same labels, and the loss computed sentence by sentence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ugrie import UGRIE
from ugrie.data.labelled import Labelled
from ugrie.model.slots import SlotFiller
from ugrie.model.tokenizer import END
from ugrie.schemes.template import Template
from ugrie.training.loss import draw_context, sentence_loss


def labelled(embeddings: np.ndarray, targets: dict[str, np.ndarray]) -> Labelled:
    count = len(embeddings)
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64), np.full(count, "photos"))


def soft(count: int, labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), count).astype(np.float32)


def filled(model: UGRIE, template: Template, embeddings: np.ndarray) -> list[np.ndarray]:
    """The slot filler's log-probabilities of every slot."""
    with torch.inference_mode():
        encoded = model.bart.model.encoder(inputs_embeds=model.mapper(torch.from_numpy(embeddings))).last_hidden_state
        filler = SlotFiller(model.bart, model.slots(template), model.decoder_start)
        return [scores.numpy() for scores in filler.fill(encoded).log_probs]


def losses(model: UGRIE, data: Labelled, *arguments) -> tuple[torch.Tensor, torch.Tensor]:
    return sentence_loss(model, model.mapper(torch.from_numpy(data.embeddings)), data.targets, *arguments)


def slot_loss(*arguments) -> torch.Tensor:
    return losses(*arguments)[0]


def plain_loss(model: UGRIE, data: Labelled, template: Template, context: list[np.ndarray], noise: float) -> tuple[float, float]:
    """`sentence_loss` with the labels `context` in the sentence, computed image by image and branch by branch from its text."""
    slots, loss, mass, rest = model.slots(template), 0.0, 0.0, []
    targets = [data.targets[scheme.name].astype(float) for scheme in template.schemes]
    for image in range(len(data)):
        sentence = template.render({s.name: s.label_names[c[image]] for s, c in zip(template.schemes, context, strict=True)})
        tokens = [*model.decoder_start, *model.tokenizer.encode(sentence, add_special_tokens=False).ids, model.tokenizer.token_to_id(END)]
        prefix = model.mapper(torch.from_numpy(data.embeddings[image : image + 1]))
        scores = model.bart(inputs_embeds=prefix, decoder_input_ids=torch.tensor([tokens[:-1]])).logits[0].double().log_softmax(-1)
        at, decided = len(model.decoder_start) - 1, set()
        for slot, wanted, chosen in zip(slots, targets, context, strict=True):
            at += len(slot.literal)
            for node in slot.branches:
                depth = len(node.prefix)
                labels = [i for i, sequence in enumerate(slot.sequences) if sequence[:depth] == node.prefix]
                if chosen[image] not in labels:
                    continue
                decided.add(at + depth)
                reached = wanted[:, labels].sum(1)
                if not reached[image]:
                    continue
                seen = (1 - noise) * reached[image] + noise * reached.mean()
                among = scores[at + depth, list(node.children)]
                mass -= float(among.logsumexp(0)) / len(data) / len(slots)
                for child, score in zip(node.children, among.log_softmax(0).tolist(), strict=True):
                    share = sum(wanted[image, i] for i in labels if slot.sequences[i][depth] == child)
                    loss -= share / seen * score / len(data) / len(slots)
            at += len(slot.labels[chosen[image]])
        given = len(model.decoder_start) - 1
        rest += [-float(scores[i, tokens[i + 1]]) for i in range(given, len(tokens) - 1) if i not in decided]
    return loss, mass + float(np.mean(rest))


@pytest.fixture(scope="module", params=["phrases", "words", "bpe", "bpe, as pretrained"])
def speaker(request, make_model, nested, tokenizers) -> UGRIE:
    """A model whose labels are one token each, or several, and whose decoder begins with one token, or two."""
    kind, _, pretrained = request.param.partition(", ")
    model = make_model(nested, tokenizer=tokenizers[kind](nested))
    if pretrained:
        model.config = model.config.model_copy(update={"decoder_start": (2, 0)})
    return model


@given(
    order=st.permutations(range(4)),
    slots=st.integers(1, 4),
    certain=st.booleans(),
    noise=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_the_loss_is_that_of_each_sentence_by_itself(speaker, embeddings, order, slots, certain, noise, seed):
    """The loss of a padded batch is the mean of single images, for any tokens, order of slots and context."""
    template = Template(tuple(speaker.config.schemes[i] for i in order[:slots]))
    targets = {s.name: soft(4, len(s.labels), seed + i) for i, s in enumerate(template.schemes)}
    if certain:
        targets = {name: np.eye(t.shape[1], dtype=np.float32)[t.argmax(1)] for name, t in targets.items()}
    data = labelled(embeddings[:4], targets)
    context = draw_context([targets[scheme.name] for scheme in template.schemes], noise, np.random.default_rng(seed))
    with torch.inference_mode():
        loss, form = losses(speaker, data, template, np.random.default_rng(seed), noise)
        expected = plain_loss(speaker, data, template, context, noise)
    assert (loss.item(), form.item()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("order", [(0,), (1, 3), (3, 2, 0, 1)])
def test_the_loss_of_the_labels_the_filler_chooses_is_its_surprise(speaker, embeddings, order):
    template = Template(tuple(speaker.config.schemes[i] for i in order))
    scores = filled(speaker, template, embeddings)
    chosen = {s.name: np.eye(len(s.labels), dtype=np.float32)[x.argmax(1)] for s, x in zip(template.schemes, scores, strict=True)}
    loss = slot_loss(speaker, labelled(embeddings, chosen), template, np.random.default_rng(0))
    assert loss.item() == pytest.approx(np.mean([-x.max(1).mean() for x in scores]), abs=1e-4)


def test_the_loss_of_a_distribution_is_its_cross_entropy(make_model, nested, embeddings):
    """All slots but the last read the filler's choices; the last is compared with a distribution over all its labels."""
    model = make_model(nested)
    template = Template((nested[1], nested[0], nested[3]))
    scores = filled(model, template, embeddings)
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[x.argmax(1)] for s, x in zip(template.schemes, scores, strict=True)}
    targets["moment"] = soft(len(embeddings), 6, seed=1)
    wanted = [targets[scheme.name] for scheme in template.schemes]
    expected = np.mean([-(w * x).sum(1).mean() for w, x in zip(wanted, scores, strict=True)])
    loss = slot_loss(model, labelled(embeddings, targets), template, np.random.default_rng(0))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_loss_of_labels_of_several_tokens_is_right_on_average(speaker, embeddings, noise):
    """Only the branches on the drawn label's path enter the loss; its mean over draws is still the cross-entropy."""
    template = Template((speaker.config.schemes[3],))
    images, draws = 3, 1500
    targets = soft(images, 6, seed=2)
    expected = -(targets * filled(speaker, template, embeddings[:images])[0]).sum(1).mean()
    many = labelled(np.repeat(embeddings[:images], draws, 0), {"moment": np.repeat(targets, draws, 0)})
    with torch.inference_mode():
        loss = slot_loss(speaker, many, template, np.random.default_rng(0), noise).item()
    assert loss == pytest.approx(expected, rel=0.05)


def test_a_label_that_is_certain_is_read_whatever_is_drawn(speaker, embeddings):
    template = Template(speaker.config.schemes)
    targets = {s.name: np.tile(np.eye(len(s.labels), dtype=np.float32)[-1], (len(embeddings), 1)) for s in template.schemes}
    data = labelled(embeddings, targets)
    losses = {round(slot_loss(speaker, data, template, np.random.default_rng(seed)).item(), 5) for seed in range(5)}
    assert len(losses) == 1


def test_labels_read_as_context_are_drawn_from_their_distribution(make_model, nested, embeddings):
    """The second slot's loss depends on the label drawn for the first: its mean over draws weights both labels by their shares."""
    model = make_model(nested)
    verdict, calmness = nested[2], nested[0]
    template, count, share = Template((verdict, calmness)), 4000, 0.8
    image = np.repeat(embeddings[:1], count, 0)
    tense = np.tile(np.eye(4, dtype=np.float32)[3], (count, 1))

    def loss(first: np.ndarray) -> float:
        data = labelled(image, {"verdict": np.tile(first.astype(np.float32), (count, 1)), "calmness": tense})
        with torch.inference_mode():
            return 2 * slot_loss(model, data, template, np.random.default_rng(3)).item()

    surprise = -filled(model, Template((verdict,)), embeddings[:1])[0][0].astype(float)
    after_good, after_not = (loss(np.eye(2)[i]) - surprise[i] for i in (0, 1))
    assert abs(after_good - after_not) > 0.05, "otherwise the draws could not be told apart"
    drawn = loss(np.array([share, 1 - share])) - np.array([share, 1 - share]) @ surprise
    assert drawn == pytest.approx(share * after_good + (1 - share) * after_not, abs=0.05 * abs(after_good - after_not))


def test_context_noise_lets_images_read_each_others_labels(make_model, nested, embeddings):
    model = make_model(nested)
    template = Template((nested[2], nested[0]))
    draw = np.random.default_rng(1)
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[draw.integers(0, len(s.labels), len(embeddings))] for s in template.schemes}
    data = labelled(embeddings, targets)
    plain = {slot_loss(model, data, template, np.random.default_rng(seed)).item() for seed in range(4)}
    noisy = {slot_loss(model, data, template, np.random.default_rng(seed), 0.9).item() for seed in range(4)}
    assert max(plain) - min(plain) < 1e-5 < max(noisy) - min(noisy)


@pytest.mark.parametrize("order", [(0,), (3, 2, 0, 1)])
def test_slots_and_form_make_up_the_surprise_of_the_sentence(speaker, embeddings, order):
    """Slot loss + form loss = cross-entropy over the whole vocabulary: mean over slots of their choices + mean over all other tokens."""
    template = Template(tuple(speaker.config.schemes[i] for i in order))
    slots, draw = speaker.slots(template), np.random.default_rng(1)
    choices = [draw.integers(0, len(scheme.labels), len(embeddings)) for scheme in template.schemes]
    targets = {s.name: np.eye(len(s.labels), dtype=np.float32)[c] for s, c in zip(template.schemes, choices, strict=True)}
    chosen, others = np.zeros((len(embeddings), len(slots))), []
    with torch.inference_mode():
        loss, form = losses(speaker, labelled(embeddings, targets), template, draw)
        for image in range(len(embeddings)):
            sentence = template.render({s.name: s.label_names[c[image]] for s, c in zip(template.schemes, choices, strict=True)})
            tokens = speaker.tokenizer.encode(sentence, add_special_tokens=False).ids
            ids = torch.tensor([*speaker.decoder_start, *tokens, speaker.tokenizer.token_to_id(END)])
            prefix = speaker.mapper(torch.from_numpy(embeddings[image : image + 1]))
            logits = speaker.bart(inputs_embeds=prefix, decoder_input_ids=ids[None, :-1]).logits[0]
            surprises = -logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0].numpy()
            at = len(speaker.decoder_start) - 1
            is_other = np.arange(len(surprises)) >= at
            for i, (slot, choice) in enumerate(zip(slots, choices, strict=True)):
                at += len(slot.literal)
                for node in slot.branches:
                    if slot.sequences[choice[image]][: len(node.prefix)] == node.prefix:
                        chosen[image, i] += surprises[at + len(node.prefix)]
                        is_other[at + len(node.prefix)] = False
                at += len(slot.labels[choice[image]])
            others += surprises[is_other].tolist()
    assert (loss + form).item() == pytest.approx(chosen.mean() + np.mean(others), rel=1e-4)


def test_every_part_of_the_model_that_speaks_is_trained(make_model, nested, embeddings):
    model = make_model(nested)
    template = Template(nested)
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    slot_loss(model, labelled(embeddings, targets), template, np.random.default_rng(0)).backward()
    for part in (model.mapper.layers[0], model.bart.model.encoder.layers[0].fc1, model.bart.model.decoder.layers[-1].fc1):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in model.encoder.parameters())


def test_a_loaded_model_can_be_trained_on(saved, nested, embeddings):
    model = UGRIE.from_pretrained(saved)
    model.bart = model.transformers_bart()  # as `train` does
    assert model.bart.lm_head.weight is model.bart.model.shared.weight is model.bart.model.decoder.embed_tokens.weight
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    assert torch.isfinite(slot_loss(model, labelled(embeddings, targets), Template(nested), np.random.default_rng(0)))
