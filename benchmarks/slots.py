"""Compares slot filling with the decoding that transformers offers, on random weights.

    python benchmarks/slots.py --json

The template has five schemes. `plain` is the sentence with one token a word, the fewest that BART's own tokenizer can need; `phrases` is
the same sentence in UGRIE's tokenizer, with one token a literal or label. Only the decoder is measured: the encoder's output is given.
`labels` compares the chosen labels with trie-constrained beam search as wide as the slot, slot by slot, on the same weights.
`share of the tower` is the time of everything after the tower in the bundled checkpoint, as a share of the time of ViT-B/32's tower.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from encoder import vit
from measure import machine, medians, save
from sentences import sentence_ids
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ugrie.libraries import BartConfig, BartForConditionalGeneration
from ugrie.model.model import UGRIE
from ugrie.model.slots import SlotFiller
from ugrie.model.tokenizer import SPECIAL, UNKNOWN, phrase_tokenizer
from ugrie.model.trie import Slot, compile_template
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import CLOSING, Template

SCHEMES = ("polarity2", "polarity3", "ekman6", "valence", "arousal")
GEOMETRIES = {
    "bart-base": {"d_model": 768, "layers": 6, "heads": 12, "vocab_size": 50265, "prefix": 10},
    "bundled": {"d_model": 64, "layers": 1, "heads": 2, "vocab_size": None, "prefix": 2},
}
BATCHES = (1, 8, 32, 128)


def words_tokenizer(schemes: tuple[Scheme, ...]) -> Tokenizer:
    """Return a tokenizer with one token a word or comma; a word includes the space before it, as in byte-level BPE."""
    pattern = Regex(r" ?\w+|[,.]")
    template = Template(schemes)
    texts = [*template.literals, CLOSING, *(f" {name}" for scheme in schemes for name in scheme.label_names)]
    split = pre_tokenizers.Split(pattern, behavior="isolated")
    words = [word for text in texts for word, _ in split.pre_tokenize_str(text)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def bart(shape: dict, vocabulary: int) -> BartForConditionalGeneration:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=max(shape["vocab_size"] or 0, vocabulary),
        d_model=shape["d_model"],
        encoder_layers=1,
        decoder_layers=shape["layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=4 * shape["d_model"],
        decoder_ffn_dim=4 * shape["d_model"],
        max_position_embeddings=256,
        init_std=0.1,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config).eval()


def generate(model: BartForConditionalGeneration, encoded: Tensor, steps: int, beams: int = 1, allowed: Callable | None = None) -> Tensor:
    """Generate a sentence of `steps` tokens with transformers' `generate`."""
    return model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
        max_new_tokens=steps,
        min_new_tokens=steps,
        num_beams=beams,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
    )


def constrained(slots: tuple[Slot, ...]) -> Callable[[int, Tensor], list[int]]:
    """Return a `prefix_allowed_tokens_fn` that allows every filling of the sentence's slots."""
    edges: dict[tuple, dict[int, tuple]] = {}
    for number, slot in enumerate(slots):
        after = (number + 1, slots[number + 1].literal[:1]) if number + 1 < len(slots) else ("end",)
        for label in slot.labels:
            path = (*slot.literal, *label)
            for i, token in enumerate(path):
                edges.setdefault((number, path[:i]), {})[token] = (number, path[: i + 1])
            edges.setdefault((number, path), {})[slot.end] = after
    edges[("end",)] = {slots[-1].end: ("end",)}  # a shorter sentence is padded here to the longest

    def allowed(_: int, written: Tensor) -> list[int]:
        place: tuple = (0, ())
        for token in written.tolist()[1:]:
            place = edges[place][token]
        return list(edges[place])

    return allowed


def score_sentences(model: BartForConditionalGeneration, encoded: Tensor, slots: tuple[Slot, ...]) -> None:
    """Score every label of every slot as a full sentence up to it: the naive way to exact probabilities."""
    context: list[int] = []
    for slot in slots:
        for label in slot.labels:
            ids = torch.tensor([[model.config.decoder_start_token_id, *context, *slot.literal, *label]]).expand(len(encoded), -1)
            logits = model(encoder_outputs=BaseModelOutput(last_hidden_state=encoded), decoder_input_ids=ids, use_cache=False).logits
            logits[:, -len(label) - 1 : -1].log_softmax(-1)
        context += [*slot.literal, *slot.labels[0]]


def differing_labels(model: BartForConditionalGeneration, encoded: Tensor, slots: tuple[Slot, ...]) -> int:
    """Count the labels that differ from those of beam search over each slot's trie, as wide as the slot."""
    ours = [labels.tolist() for labels in SlotFiller(model, slots, [model.config.decoder_start_token_id]).fill(encoded).labels]
    differing = 0
    for row in range(len(encoded)):
        context: list[int] = []
        for slot, chosen in zip(slots, ours, strict=True):
            prompt = [model.config.decoder_start_token_id, *context, *slot.literal]
            longest = max(map(len, slot.sequences))
            trie = {sequence[:i] for sequence in slot.sequences for i in range(len(sequence) + 1)}

            def allowed(_: int, written: Tensor, trie: set = trie, prompt: list = prompt, slot: Slot = slot) -> list[int]:
                path = tuple(written.tolist()[len(prompt) :])
                return sorted({t[len(path)] for t in trie if len(t) == len(path) + 1 and t[:-1] == path}) or [slot.end]

            written = model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded[row : row + 1]),
                decoder_input_ids=torch.tensor([prompt]),
                max_new_tokens=longest,
                min_new_tokens=longest,
                num_beams=2 * len(slot.labels),
                do_sample=False,
                length_penalty=0.0,
                renormalize_logits=True,
                prefix_allowed_tokens_fn=allowed,
            )[0].tolist()[len(prompt) :]
            theirs = next(i for i, s in enumerate(slot.sequences) if tuple(written[: len(s)]) == s)
            differing += theirs != chosen[row]
            context += [*slot.literal, *slot.labels[chosen[row]]]
    return differing


@torch.inference_mode()
def measure(name: str, batches: tuple[int, ...], repeats: int) -> dict[str, dict]:
    shape = GEOMETRIES[name]
    template = Template.of(*SCHEMES)
    results: dict[str, dict] = {}
    words, phrases = words_tokenizer(template.schemes), phrase_tokenizer(template.schemes)
    plain, short = compile_template(template, words), compile_template(template, phrases)
    model, model_short = bart(shape, words.get_vocab_size()), bart(shape, phrases.get_vocab_size())
    start = [model.config.decoder_start_token_id]
    filler, filler_short = SlotFiller(model, plain, start), SlotFiller(model_short, short, start)
    steps = len(sentence_ids(plain, [max(range(len(s.labels)), key=lambda i: len(s.labels[i])) for s in plain])) + 1
    for batch in batches:
        encoded = torch.randn(batch, shape["prefix"], shape["d_model"], generator=torch.Generator().manual_seed(batch))
        seconds = medians(
            {
                "ours, phrases": lambda encoded=encoded: filler_short.fill(encoded),
                "ours, plain": lambda encoded=encoded: filler.fill(encoded),
                "generate, greedy": lambda encoded=encoded: generate(model, encoded, steps),
                "generate, constrained": lambda encoded=encoded: generate(model, encoded, steps, allowed=constrained(plain)),
                "generate, beam 4": lambda encoded=encoded: generate(model, encoded, steps, beams=4),
                "every sentence scored": lambda encoded=encoded: score_sentences(model, encoded, plain),
            },
            repeats,
        )
        greedy = seconds["generate, greedy"]
        results[str(batch)] = {
            "milliseconds": {key: round(1000 * value, 3) for key, value in seconds.items()},
            "times_faster_than_greedy": {key: round(greedy / value, 2) for key, value in seconds.items()},
        }
    count = min(8, max(batches))
    encoded = torch.randn(count, shape["prefix"], shape["d_model"], generator=torch.Generator().manual_seed(1))
    results["labels"] = {"compared": count * len(SCHEMES), "differing": differing_labels(model, encoded, plain)}
    return results


@torch.inference_mode()
def share_of_tower(batch: int, repeats: int) -> dict[str, float | int]:
    """Measure the bundled checkpoint from embeddings to probabilities, as a share of ViT-B/32's tower on a CPU."""
    model, encoder = UGRIE.from_pretrained("ugrie-tiny"), vit("ViT-B-32")
    crops = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)
    embeddings = torch.randn(batch, model.config.tower.embedding_dim)
    towers = {precision: copy.deepcopy(encoder).prepare("cpu", precision) for precision in ("fp32", "int8")}
    seconds = medians(
        {
            "filling": lambda: model.predict(embeddings),
            "tower, fp32": lambda: towers["fp32"](crops),
            "tower, int8": lambda: towers["int8"](crops),
        },
        repeats,
    )
    return {
        "batch": batch,
        **{f"milliseconds, {name}": round(1000 * value, 3) for name, value in seconds.items()},
        "filling of fp32 tower": round(seconds["filling"] / seconds["tower, fp32"], 5),
        "filling of int8 tower": round(seconds["filling"] / seconds["tower, int8"], 5),
    }


def table(results: dict[str, dict]) -> str:
    lines = []
    for geometry, by_batch in ((name, results[name]) for name in GEOMETRIES if name in results):
        batches = [b for b in by_batch if b != "labels"]
        lines += [
            "",
            f"{geometry}: milliseconds (times faster than greedy), by batch size",
            f"{'':24}" + "".join(f"{b:>20}" for b in batches),
        ]
        for name in by_batch[batches[0]]["milliseconds"]:
            cells = (f"{by_batch[b]['milliseconds'][name]:.1f} ({by_batch[b]['times_faster_than_greedy'][name]:.1f}x)" for b in batches)
            lines.append(f"{name:24}" + "".join(f"{cell:>20}" for cell in cells))
        lines.append(f"labels unlike the oracle's: {by_batch['labels']['differing']} of {by_batch['labels']['compared']}")
    share = results["share of the tower"]
    for precision in ("fp32", "int8"):
        lines.append(f"filling, bundled: {share[f'filling of {precision} tower']:.2%} of the time of ViT-B/32's tower in {precision}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=GEOMETRIES, action="append", help="a BART to measure, all by default")
    parser.add_argument("--batch", type=int, action="append", help="a batch size to measure; repeat it for several")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = {name: measure(name, tuple(args.batch or BATCHES), args.repeats) for name in args.geometry or GEOMETRIES}
    results["share of the tower"] = share_of_tower(32, args.repeats)
    if args.json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(table(results))
        print(f"\nwritten to {save('slots', results).name}")


if __name__ == "__main__":
    main()
