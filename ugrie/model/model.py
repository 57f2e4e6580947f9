"""UGRIE: image tower -> mapper -> BART, which fills the template's slots.

    model = UGRIE.from_pretrained("ugrie-tiny")
    model.annotate(["beach.jpg"], schemes=["polarity2", "valence"])[0].sentence
    model.annotate_embeddings(embeddings)  # of embeddings computed before

Shi et al., "One for All: A Unified Generative Framework for Image Emotion Classification", IEEE TCSVT 34(8), 2024. The
paper publishes no code. Each module states the decisions that its abstract leaves open.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_model, save
from tokenizers import Tokenizer
from torch import Tensor, nn

from ugrie.memory import Portions
from ugrie.model import checkpoint, zero_shot
from ugrie.model.adaptation import Adaptation
from ugrie.model.bart import Bart
from ugrie.model.consistency import slot_signs
from ugrie.model.mapper import Mapper
from ugrie.model.prediction import Annotation, Prediction, read
from ugrie.model.slots import Opinion, SlotFiller
from ugrie.model.trie import Slot, compile_template
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme, SchemeError
from ugrie.schemes.template import Template
from ugrie.text import one_line
from ugrie.vision import preprocess
from ugrie.vision.download import fetch_weights
from ugrie.vision.encoder import Encoder, Precision
from ugrie.vision.gpu import Uploaded


class UGRIE(nn.Module):
    """The whole model. Load it with `from_pretrained`; `ugrie.training.train.new_model` builds one to train, with transformers' BART."""

    def __init__(self, config: checkpoint.Config, tokenizer: Tokenizer, bart: Bart):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.bart = bart
        shape = config.mapper
        self.mapper = Mapper(
            embedding_dim=config.tower.embedding_dim,
            components=shape.components,
            landmarks=shape.landmarks,
            answers=sum(scheme.answers for scheme in config.written),
            labels=sum(len(scheme.labels) for scheme in config.written),
            prefix_length=shape.prefix_length,
            d_model=bart.config.d_model,
            hidden=shape.hidden,
            dropout=shape.dropout,
        )
        self.adaptation: Adaptation | None = None
        if config.adaptation is not None:
            self.adaptation = Adaptation(config.adaptation, config.schemes, shape.components, config.tower.embedding_dim)
        self.encoder: Encoder | None = None
        self.tower_weights: str | None = None
        self.precision: Precision = "auto"
        self._slots: dict[Template, tuple[Slot, ...]] = {}
        self._fillers: dict[tuple[Template, tuple[tuple[str, ...], ...]], SlotFiller] = {}
        self.portions = Portions(0, "templates")
        self._zero_shot: dict[Scheme, ZeroShot] = {}
        self._tower_digest: str | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: str = "cpu", tower_weights: str | None = None, precision: Precision = "auto"
    ) -> "UGRIE":
        """Load a bundled checkpoint by its name, or any by its folder. Raises CheckpointError.

        `precision` is the image tower's: auto (fp16 on a GPU, fp32 on a CPU), fp32, fp16, bf16, or int8 on a CPU.
        `tower_weights` is the file of CLIP weights for checkpoints that do not bundle their tower. Without it open_clip
        downloads them when the first image is annotated.
        """
        folder = checkpoint.find(str(name_or_folder))
        config = checkpoint.read_config(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more specific
            raise checkpoint.CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer: {error}") from None
        model = cls(config, tokenizer, Bart(checkpoint.BartShape.model_validate(config.bart)))
        if config.tower.vision_cfg is not None:
            try:
                model.encoder = Encoder.bundled(config.tower)
            except Exception as error:  # open_clip and timm raise errors of many kinds for an impossible tower
                problem = one_line(str(error)) or type(error).__name__
                raise checkpoint.CheckpointError(f"{folder / 'config.json'}: tower.vision_cfg: {problem}") from None
        model.tower_weights = tower_weights
        try:
            load_model(model, folder / "model.safetensors")
        except (RuntimeError, SafetensorError) as error:
            raise checkpoint.CheckpointError(f"{folder / 'model.safetensors'} does not fit its config.json: {error}") from None
        model.eval().to(device)
        model.precision = precision
        if model.encoder is not None:
            model.encoder.prepare(device, precision)
        return model

    def save_pretrained(self, folder: str | Path, card: str) -> None:
        """Write the checkpoint's folder. `card` is the text of its MODEL_CARD.md. The weights of a tower known by name are not written."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.model_dump_json(indent=1, exclude_none=True) + "\n")
        (folder / "MODEL_CARD.md").write_text(card)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        encoder, self.encoder = self.encoder, self.encoder if self.config.tower.vision_cfg is not None else None
        try:
            weights = save(_untied(self.state_dict()))
        finally:
            self.encoder = encoder
        (folder / "model.safetensors").write_bytes(weights)  # safetensors' own function makes a file that only its owner may read

    @property
    def decoder_start(self) -> tuple[int, ...]:
        """The special tokens with which the decoder starts every sentence."""
        return self.config.decoder_start or (self.bart.config.decoder_start_token_id,)

    def slots(self, template: Template) -> tuple[Slot, ...]:
        """Return the template's slots in this checkpoint's tokens. Raises TemplateError if its tokenizer lacks any."""
        if template not in self._slots:
            self._slots[template] = compile_template(template, self.tokenizer)
        return self._slots[template]

    def annotate(
        self,
        images: Iterable[str | Path | Image.Image | np.ndarray],
        schemes: Sequence[str] | None = None,
        batch_size: int = 32,
        decode: Literal["slots", "generate"] = "slots",
    ) -> list[Annotation]:
        """Annotate images: paths, PIL images or uint8 arrays ([height, width] grey or [height, width, 3] RGB).

        `schemes` are stated in their order; default: all the checkpoint was trained for. Others, by their names or the paths of their
        files, are answered zero-shot, see `predict`. With `decode="generate"`, BART writes freely, see `generate`. Raises SchemeError,
        and Pillow's errors for a file that is not an image.
        """
        annotations: list[Annotation] = []
        decoded = self._decoder(schemes, decode)
        crops = (preprocess.crop(_open(image), self.config.tower.crop_size) for image in images)
        batches = iter(lambda: list(islice(crops, batch_size)), [])
        for embeddings in self.encode(np.stack(batch) for batch in batches):
            annotations += decoded(embeddings)
        return annotations

    def annotate_embeddings(
        self,
        embeddings: np.ndarray,
        schemes: Sequence[str] | None = None,
        batch_size: int = 1024,
        decode: Literal["slots", "generate"] = "slots",
    ) -> list[Annotation]:
        """Annotate images by their embeddings from this checkpoint's tower: float [images, embedding_dim], of any norm.

        `schemes` and `decode` are as in `annotate`. Raises ValueError for embeddings of another shape.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.config.tower.embedding_dim:
            raise ValueError(
                f"embeddings are [images, {self.config.tower.embedding_dim}] for {self.config.name}, not {list(embeddings.shape)}"
            )
        annotations: list[Annotation] = []
        decoded = self._decoder(schemes, decode)
        for start in range(0, len(embeddings), batch_size):
            batch = torch.from_numpy(embeddings[start : start + batch_size].astype(np.float32))
            annotations += decoded(batch)
        return annotations

    def _decoder(self, schemes: Sequence[str] | None, decode: Literal["slots", "generate"]) -> Callable[[Tensor], Iterable[Annotation]]:
        """Return the function that annotates a batch of embeddings. Files of schemes are read once, for all batches."""
        if decode == "generate":
            return lambda embeddings: self.generate(embeddings, schemes)
        asked = None if schemes is None else self._answered(schemes)
        return lambda embeddings: self.predict(embeddings, asked).annotations()

    @torch.inference_mode()
    def generate(self, embeddings: Tensor, schemes: Sequence[str] | None = None) -> list[Annotation]:
        """Let BART write sentences freely for embeddings [n, embedding_dim], token by token (greedy), and read the labels from them.

        Slow and without probabilities: for inspecting what a model has learnt, and for models trained elsewhere. An annotation has
        readings for the schemes that its sentence states, and none if the sentence doesn't follow the template. Raises SchemeError for
        a scheme that BART was not trained for.
        """
        template = Template(self.config.written) if schemes is None else self.config.template(tuple(schemes))
        for scheme in template.schemes:
            if scheme not in self.config.written:
                raise SchemeError(f"BART can't write {scheme.name}, for which {self.config.name} was not trained: leave decode at slots")
        prefix = self.mapper(embeddings.to(self.bart.device, torch.float32))
        longest = sum(len(slot.literal) + max(map(len, slot.labels)) for slot in self.slots(Template(self.config.written))) + 3
        start = torch.tensor([self.decoder_start], device=prefix.device).expand(len(prefix), -1)
        tokens = self.transformers_bart().generate(
            inputs_embeds=prefix, decoder_input_ids=start, max_new_tokens=longest, do_sample=False, num_beams=1
        )
        return [read(sentence, template) for sentence in self.tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=True)]

    def transformers_bart(self) -> Any:
        """Return transformers' BART, which shares this model's weights: to train on, or to generate."""
        if not isinstance(self.bart, Bart):
            return self.bart
        from ugrie.libraries import BartConfig, BartForConditionalGeneration

        bart = BartForConditionalGeneration(BartConfig(**self.config.bart))
        bart.load_state_dict(self.bart.state_dict(), assign=True)
        bart.tie_weights()
        return bart.train(self.training)

    @torch.inference_mode()
    def encode(self, batches: Iterable[np.ndarray | Uploaded]) -> Iterator[Tensor]:
        """Yield the embeddings of each batch of uint8 crops [n, size, size, 3]: float32 [n, embedding_dim] on the model's device.

        A batch may be the result of `Encoder.upload`.
        """
        yield from self.load_encoder().stream(batches)

    def load_encoder(self) -> Encoder:
        """Return the image tower. One known by name is loaded at first use; `Encoder.pretrained` lists the errors."""
        if self.encoder is None:
            encoder = Encoder.pretrained(self.config.tower, self.tower_weights)
            self.encoder = encoder.prepare(str(self.bart.device), self.precision)
        return self.encoder

    @torch.inference_mode()
    def predict(self, embeddings: Tensor, schemes: Sequence[str | ZeroShot] | None = None) -> Prediction:
        """Fill the template for embeddings [n, embedding_dim], with calibrated probabilities of all labels.

        Schemes that an adaptation knows alone are answered by it. Schemes that the checkpoint was not trained for are answered zero-shot,
        by the text tower of the CLIP that its image tower belongs to; `Encoder.pretrained` lists the errors of loading it. The other
        schemes' answers don't depend on either. Raises SchemeError, and ValueError for embeddings that are not finite.
        """
        if not (is_finite := embeddings.isfinite().all(1)).all():
            raise ValueError(f"{int((~is_finite).sum())} of {len(embeddings)} embeddings hold infinity or NaN")
        asked = [scheme.name for scheme in self.config.schemes] if schemes is None else self._answered(schemes)
        template = Template(tuple(each.scheme if isinstance(each, ZeroShot) else self.config.scheme(each) for each in asked))
        written = tuple(scheme for scheme in template.schemes if scheme in self.config.written)
        probs: dict[str, np.ndarray] = {}
        choices: dict[str, np.ndarray] = {}
        if written:
            probs, choices = self._fill(embeddings, template if written == template.schemes else Template(written))
        images = embeddings.float().cpu().numpy() if len(written) < len(asked) else np.empty(0)
        few_shot = [each for each in asked if isinstance(each, str) and each in self.config.few_shot]
        probs |= self._few_shot(images, few_shot)
        probs |= {each.scheme.name: each.probs(images) for each in asked if isinstance(each, ZeroShot)}
        choices |= {name: shares.argmax(1) for name, shares in probs.items() if name not in choices}
        return Prediction(template, probs, choices)

    def _few_shot(self, embeddings: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the probabilities of the labels of schemes that the adaptation answers without BART: float32 [n, labels]."""
        if not names or self.adaptation is None:
            return {}
        components = self.mapper.components(torch.from_numpy(embeddings).to(self.mapper.mean.device))
        found = self.adaptation.corrections(components)
        prior = self.adaptation.zero_shot(self.mapper.mean)
        scores = {name: found[name] for name in names}
        for name in prior.keys() & scores.keys():
            scores[name] = scores[name] + torch.from_numpy(np.log(np.maximum(prior[name].probs(embeddings), 1e-12))).to(components.device)
        return {name: each.softmax(-1).cpu().numpy() for name, each in scores.items()}

    def _fill(self, embeddings: Tensor, template: Template) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the probabilities of the labels, and the chosen labels, of each scheme that the checkpoint was trained for."""
        found = self.portions(lambda some, _: self._fill_portion(some, template), embeddings)
        if len(found) == 1:
            return found[0]
        probs, choices = ({name: np.concatenate([part[i][name] for part in found]) for name in found[0][i]} for i in range(2))
        return probs, choices

    def _filler(self, template: Template) -> SlotFiller:
        key = template, self.config.consistent
        if key not in self._fillers:
            signs = slot_signs(template.schemes, self.config.consistent)
            self._fillers[key] = SlotFiller(self.bart, self.slots(template), self.decoder_start, signs)
        return self._fillers[key]

    def _fill_portion(self, embeddings: Tensor, template: Template) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        components = self.mapper.components(embeddings.to(self.bart.device, torch.float32))
        answers = self.mapper.answers_at(components)
        prefix = self.mapper.prefix(answers)
        encoder = self.bart.model.encoder
        encoded = encoder(prefix) if isinstance(self.bart, Bart) else encoder(inputs_embeds=prefix).last_hidden_state
        probs, choices = {}, {}
        filled = self._filler(template).fill(encoded, self._opinions(answers, components, template))
        for scheme, scores, labels in zip(template.schemes, filled.log_probs, filled.labels, strict=True):
            temperature = self.config.temperatures.get(scheme.name, 1.0)
            probs[scheme.name] = (scores / temperature).softmax(-1).cpu().numpy()
            choices[scheme.name] = labels.cpu().numpy()
        return probs, choices

    def _opinions(self, answers: Tensor, components: Tensor, template: Template) -> list[Opinion]:
        """Return what the mapper's regression says of each slot's labels by its outputs alone, and what the adaptation corrects.

        A correction is of calibrated log-probabilities, so it is stretched by the temperature that they are divided by.
        """
        schemes = self.config.written
        scores = self.mapper.label_scores(answers).split([len(scheme.labels) for scheme in schemes], 1)
        by_name = {scheme.name: each.log_softmax(-1) for scheme, each in zip(schemes, scores, strict=True)}
        corrections = {} if self.adaptation is None else self.adaptation.corrections(components)
        temperatures = {scheme.name: self.config.temperatures.get(scheme.name, 1.0) for scheme in schemes}
        corrections = {name: each * temperatures[name] for name, each in corrections.items() if name in temperatures}
        shares = self.config.regression_shares
        return [Opinion(by_name[s.name], shares.get(s.name, 0.0), corrections.get(s.name)) for s in template.schemes]

    def _answered(self, schemes: Sequence[str | ZeroShot]) -> list[str | ZeroShot]:
        """Return what answers the schemes that the checkpoint was not trained for, and the others' names. Embeds labels at first use."""
        asked = [each if isinstance(each, ZeroShot) else self.config.scheme(each) for each in schemes]
        untrained = [each for each in asked if isinstance(each, Scheme) and not self.config.was_trained_for(each)]
        if new := [scheme for scheme in untrained if scheme not in self._zero_shot]:
            weights = self.tower_weights or fetch_weights(self.config.tower)
            self._tower_digest = self._tower_digest or checkpoint.named_tower_digest(self.config, weights)  # hashes the whole file
            answers = zero_shot.answer(self.config.tower, self._tower_digest, self.mapper.mean.cpu().numpy(), new, lambda: weights)
            self._zero_shot |= {scheme: answers[scheme.name] for scheme in new}
        return [each if isinstance(each, ZeroShot) else self._zero_shot.get(each, each.name) for each in asked]


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep tied weights under the first of their names only.

    safetensors' `save_model` does the same, but records the other names in random order, so that files would differ.
    """
    names: dict[int, str] = {}
    for name in sorted(weights):
        names.setdefault(weights[name].data_ptr(), name)
    return {name: weights[name].contiguous() for name in names.values()}


def _open(image: str | Path | Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        image.load()  # otherwise cropping would reduce a JPEG, and so change the caller's image
        return image
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return Image.open(image)
