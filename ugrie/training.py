"""Trains mapper and BART to write the filled template for image embeddings.

The loss is the cross-entropy of each slot's label, over the labels the slot can take (what `ugrie.slots` computes), given
the labels before it; and, with a small weight, that of the rest of the sentence. A sample states only the clauses it has
labels for, in an order and selection drawn anew for every batch, so that any subset of schemes can be asked for. Labels
read as context are drawn from their distribution.
"""

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ugrie.checkpoint import Config, MapperConfig, TowerConfig
from ugrie.data import Labelled, load
from ugrie.embeddings import EmbeddingCache
from ugrie.evaluation import evaluate
from ugrie.libraries import BartConfig, BartForConditionalGeneration
from ugrie.lite0 import lite0
from ugrie.model import UGRIE
from ugrie.recipe import Recipe, read_recipe
from ugrie.schemes import Scheme, load_scheme
from ugrie.template import CLOSING, Template
from ugrie.tokenizer import phrase_tokenizer
from ugrie.trie import Slot

logger = logging.getLogger(__name__)
IGNORED = -100


def new_model(recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig) -> UGRIE:
    """A model of the recipe's shape with random weights. Torch's seed decides them."""
    tokenizer = phrase_tokenizer(schemes)
    shape = recipe.bart
    bart = {
        "vocab_size": len(tokenizer),
        "d_model": shape.d_model,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.layers,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "encoder_ffn_dim": 4 * shape.d_model,
        "decoder_ffn_dim": 4 * shape.d_model,
        "max_position_embeddings": 128,
        "dropout": shape.dropout,
        "forced_eos_token_id": None,
    }
    config = Config(
        name=recipe.name,
        schemes=tuple(schemes),
        temperatures={},
        tower=tower,
        mapper=MapperConfig(components=recipe.components, prefix_length=recipe.prefix_length, hidden=recipe.hidden, dropout=recipe.dropout),
        bart=bart,
    )
    return UGRIE(config, tokenizer, BartForConditionalGeneration(BartConfig(**bart)))


def train(model: UGRIE, data: Labelled, recipe: Recipe) -> list[dict[str, float]]:
    """Trains in place, stops when the validation loss no longer falls, keeps the best weights, fits the temperatures.

    Returns the learning curve: epoch, training loss and validation loss (nats a slot).
    """
    draw = np.random.default_rng(recipe.seed)
    inside, outside = split(data, recipe.validation, draw)
    learn, check = data.take(inside), data.take(outside)
    model.mapper.fit_projection(torch.from_numpy(learn.embeddings))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(batches(learn, model.config.schemes, recipe.batch_size, draw))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    best, best_state, since, curve = float("inf"), copy.deepcopy(model.state_dict()), 0, []
    for epoch in range(recipe.epochs):
        model.train()
        losses = []
        for rows in batches(learn, model.config.schemes, recipe.batch_size, draw):
            template = draw_template(learn, model.config.schemes, rows[0], draw)
            batch = mix(learn.take(rows), recipe.mixup, draw)
            loss, form = sentence_loss(model, batch, template, draw, recipe.context_noise)
            losses.append(loss.detach())
            optimizer.zero_grad()
            (loss + recipe.form_weight * form).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        checked = validation_loss(model, check)
        curve.append({"epoch": epoch, "training": float(torch.stack(losses).mean()), "validation": checked})
        logger.info("epoch %3d  training %.4f  validation %.4f", *curve[-1].values())
        if checked < best:
            best, best_state, since = checked, copy.deepcopy(model.state_dict()), 0
        else:
            since += 1
            if since >= recipe.patience:
                break
    model.load_state_dict(best_state)
    model.eval()
    model.config = model.config.model_copy(update={"temperatures": fit_temperatures(model, check)})
    return curve


def split(data: Labelled, share: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation. Images of one group stay together."""
    groups = draw.permutation(np.unique(data.groups))
    held_out = np.isin(data.groups, groups[: max(1, round(share * len(groups)))])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def batches(data: Labelled, schemes: Sequence[Scheme], size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Rows in shuffled batches; the images of a batch have labels for the same schemes, so that one template fits all."""
    has = np.stack([data.targets[scheme.name].any(1) for scheme in schemes], 1)
    parts = []
    for kind in np.unique(has[has.any(1)], axis=0):
        rows = np.flatnonzero((has == kind).all(1))
        rows = draw.permutation(np.repeat(rows, data.repeats[rows]))
        parts += [rows[i : i + size] for i in range(0, len(rows), size)]
    return [parts[i] for i in draw.permutation(len(parts))]


def draw_template(data: Labelled, schemes: Sequence[Scheme], row: int, draw: np.random.Generator) -> Template:
    """Some of the clauses an image has labels for, in any order; all of them half of the time."""
    labelled = [scheme for scheme in schemes if data.targets[scheme.name][row].any()]
    count = len(labelled) if draw.random() < 0.5 else int(draw.integers(1, len(labelled) + 1))
    return Template(tuple(labelled[i] for i in draw.permutation(len(labelled))[:count]))


def mix(data: Labelled, concentration: float, draw: np.random.Generator) -> Labelled:
    """Mixup (Zhang et al., ICLR 2018): each image and its labels blended with another's of the batch, by Beta-drawn shares."""
    if not concentration:
        return data
    share = draw.beta(concentration, concentration, (len(data), 1)).astype(np.float32)
    other = data.take(draw.permutation(len(data)))
    targets = {name: share * target + (1 - share) * other.targets[name] for name, target in data.targets.items()}
    unit = [d.embeddings / np.linalg.norm(d.embeddings, axis=1, keepdims=True) for d in (data, other)]
    return Labelled(share * unit[0] + (1 - share) * unit[1], targets, data.groups, data.repeats)


def sentence_loss(
    model: UGRIE, data: Labelled, template: Template, draw: np.random.Generator, context_noise: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Two means in nats: the cross-entropy of the template's slots against the targets, and that of everything else.

    The first is over the labels each slot can take. The second is what makes the model write the sentence by itself: the
    literal text, the closing, and that a label follows a literal at all. Every image must have all the template's labels.
    With `context_noise` that share of the labels read as context are other images', so that later slots do not lean on
    earlier ones more than those deserve.
    """
    slots = model.slots(template)
    targets = [data.targets[scheme.name] for scheme in template.schemes]
    context = [(t.cumsum(1) > draw.random((len(t), 1)) * t.sum(1, keepdims=True)).argmax(1) for t in targets]
    foreign = draw.random((len(targets), len(data))) < context_noise
    context = [np.where(f, c[draw.permutation(len(c))], c) for f, c in zip(foreign, context, strict=True)]
    tokens, places = _tokens(model, slots, context)
    prefix = model.mapper(torch.from_numpy(data.embeddings).to(model.bart.device))
    hidden = model.bart.model(inputs_embeds=prefix, decoder_input_ids=tokens, use_cache=False).last_hidden_state
    vocabulary = linear(hidden, model.bart.lm_head.weight, model.bart.final_logits_bias[0])
    expected = _expected(model, slots, tokens, places, context)
    form = cross_entropy(vocabulary.flatten(0, 1), expected.flatten(), ignore_index=IGNORED)
    loss = hidden.new_zeros(())
    for slot, wanted, chosen, place in zip(slots, targets, context, places, strict=True):
        for node in slot.branches:
            depth = len(node.prefix)
            share = wanted @ slot.choices(node)
            on_path = np.array([s[:depth] == node.prefix for s in slot.sequences])
            rows = np.flatnonzero(on_path[chosen] & (share.sum(1) > 0))
            if not len(rows):
                continue
            share = torch.from_numpy(share[rows]).to(hidden.device)
            children = torch.tensor(node.children, device=hidden.device)
            at = vocabulary[torch.from_numpy(rows), torch.from_numpy(place[rows] + depth)]
            logits = at[:, children]
            loss = loss - (share / share.sum(1, keepdim=True) * logits.log_softmax(-1)).sum() / len(wanted)
            form = form + (at.logsumexp(1) - logits.logsumexp(1)).sum() / len(wanted) / len(slots)
    return loss / len(slots), form


def _tokens(model: UGRIE, slots: Sequence[Slot], context: Sequence[np.ndarray]) -> tuple[Tensor, list[np.ndarray]]:
    """Decoder inputs of the filled sentences, padded at the end, and where each slot's decision is read."""
    start, closing = model.decoder_start, model.tokenizer(CLOSING, add_special_tokens=False)["input_ids"]
    sentences, places = [], [np.zeros(len(c), np.int64) for c in context]
    for row in range(len(context[0])):
        sentence = list(start)
        for slot, chosen, place in zip(slots, context, places, strict=True):
            sentence += slot.literal
            place[row] = len(sentence) - 1
            sentence += slot.labels[chosen[row]]
        sentence += closing
        sentences.append(torch.tensor(sentence))
    padded = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=model.tokenizer.pad_token_id)
    return padded.to(model.bart.device), places


def _expected(model: UGRIE, slots: Sequence[Slot], tokens: Tensor, places: Sequence[np.ndarray], context: Sequence[np.ndarray]) -> Tensor:
    """The token that follows each one, int64 as `tokens`; IGNORED within labels, whose choice is the slot's, and in padding."""
    ending = torch.full_like(tokens[:, :1], model.tokenizer.eos_token_id)
    expected = torch.cat([tokens[:, 1:], ending], 1)
    past = tokens == model.tokenizer.pad_token_id
    expected[torch.roll(past, -1, 1) & ~past] = model.tokenizer.eos_token_id
    expected[past] = IGNORED
    for slot, chosen, place in zip(slots, context, places, strict=True):
        lengths = np.array([len(label) for label in slot.labels])[chosen]
        for step in range(int(lengths.max())):
            rows = np.flatnonzero(step < lengths)
            expected[torch.from_numpy(rows), torch.from_numpy(place[rows] + step)] = IGNORED
    return expected


def validation_loss(model: UGRIE, data: Labelled) -> float:
    """Cross-entropy of a slot in nats, the mean over the schemes, each image asked for all in the checkpoint's order."""
    losses = [
        -float((wanted * np.log(np.maximum(probs, 1e-12))).sum(1).mean()) for wanted, probs in _predictions(model, data) if len(wanted)
    ]
    return float(np.mean(losses))


def fit_temperatures(model: UGRIE, data: Labelled) -> dict[str, float]:
    """The temperature of each scheme that gives the least cross-entropy (Guo et al., ICML 2017), found on a grid."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(4), 121))
    temperatures = {}
    for scheme, (wanted, probs) in zip(model.config.schemes, _predictions(model, data), strict=True):
        logs = np.log(np.maximum(probs, 1e-12))[None] / grid[:, None, None]
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
        losses = -(wanted[None] * logs).sum((1, 2))
        temperatures[scheme.name] = round(float(grid[losses.argmin()]), 4) if len(wanted) else 1.0
    return temperatures


def _predictions(model: UGRIE, data: Labelled) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each scheme the targets of the images that have it, and what the model says of them, uncalibrated."""
    model.eval()
    plain = model.config.model_copy(update={"temperatures": {}})
    config, model.config = model.config, plain
    try:
        probs = model.predict(torch.from_numpy(data.embeddings)).probs
    finally:
        model.config = config
    has = {scheme.name: data.targets[scheme.name].any(1) for scheme in config.schemes}
    return [(data.targets[name][rows], probs[name][rows]) for name, rows in has.items()]


def cross_validate(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, folds: int
) -> dict[str, dict[str, float]]:
    """Measures of predictions for images (and groups) that the model making them has not seen, by scheme."""
    draw = np.random.default_rng(recipe.seed)
    fold_of_group = {g: i % folds for i, g in enumerate(draw.permutation(np.unique(data.groups)))}
    fold = np.array([fold_of_group[g] for g in data.groups])
    probs = {s.name: np.zeros_like(data.targets[s.name]) for s in schemes}
    for k in range(folds):
        torch.manual_seed(recipe.seed + k)
        model = new_model(recipe, schemes, tower)
        train(model, data.take(np.flatnonzero(fold != k)), recipe)
        given = model.predict(torch.from_numpy(data.embeddings[fold == k])).probs
        for scheme in schemes:
            probs[scheme.name][fold == k] = given[scheme.name]
    measured = {}
    sets = np.array([group.partition(":")[0] for group in data.groups])
    for scheme in schemes:
        has = data.targets[scheme.name].any(1)
        for name in np.unique(sets[has]):
            rows = has & (sets == name)
            measured[f"{scheme.name} on {name}"] = dict(evaluate(scheme, data.targets[scheme.name][rows], probs[scheme.name][rows]))
    return measured


def train_recipe(path: Path, root: Path, output: Path, cache: Path, folds: int = 0) -> dict[str, dict[str, float]]:
    """Trains a checkpoint as a recipe says and writes it to `output`. Returns the cross-validated measures, if any."""
    recipe = read_recipe(path)
    schemes = [load_scheme(name) for name in recipe.schemes]
    encoder = lite0()
    embed = EmbeddingCache(encoder, cache)
    data = Labelled.concat([load(data_set, root, schemes, embed) for data_set in recipe.data], schemes)
    measured = cross_validate(recipe, schemes, encoder.config, data, folds) if folds else {}
    torch.manual_seed(recipe.seed)
    model = new_model(recipe, schemes, encoder.config)
    curve = train(model, data, recipe)
    model.encoder = encoder
    card = path.parent / "MODEL_CARD.md"
    model.save_pretrained(output, card.read_text() if card.is_file() else f"# {recipe.name}\n\nTrained by `{path}`.\n")
    (output / "training.json").write_text(json.dumps({"curve": curve, "cross_validated": measured}, indent=1) + "\n")
    return measured
