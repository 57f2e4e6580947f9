"""A review of real images, made without Ray or a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.review import page
from pipeline.review.record import Prediction, Review, ReviewImage, ReviewScheme
from pipeline.table.output_folder import OutputFolder

SCHEMES = ("mikels8", "valence")


@dataclass
class Corpus:
    """An output of two nights over `photos`, URIs with their bytes, and a folder for reviews."""

    output: OutputFolder
    photos: list[tuple[str, bytes]]
    folder: Path

    def review(self, name: str = "review", count: int = 30, share: float = 0.25, seed: int = 0, **settings: Any) -> Review:
        return page.write(self.output, self.folder / name, page.Settings(count, share, seed, **settings))


@pytest.fixture(scope="session")
def make_corpus(images, night):
    def make(folder: Path, count: int = 40, embedded: bool = True, failures: Any = (("s3://b/gone", "missing", "gone"),)) -> Corpus:
        source, output = folder / "in", folder / "out"
        source.mkdir()
        output.mkdir()
        photos = []
        for i in range(count):
            (source / f"{i}.jpg").write_bytes(images.jpeg(i))
            photos.append(((source / f"{i}.jpg").as_uri(), images.jpeg(i)))
        embeddings = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float16) if embedded else None
        for date, rows in (("2026-01-01", slice(0, count // 2)), ("2026-01-02", slice(count // 2, count))):
            own = None if embeddings is None else embeddings[rows]
            night(output, date, photos[rows], failures, schemes=SCHEMES, embeddings=own, group_rows=7, input=str(source))
        return Corpus(OutputFolder(str(output), {}), photos, folder)

    return make


@pytest.fixture
def corpus(make_corpus, tmp_path) -> Corpus:
    return make_corpus(tmp_path)


def made_review(images: int, population: int, random: int | None = None, seed: int = 0) -> Review:
    """A review of made-up images of two schemes; the first `random` of them were drawn at random."""
    random = images if random is None else random
    rng = np.random.default_rng(seed)
    shown = []
    for i in range(images):
        mood, level = rng.dirichlet([1, 1, 1]), rng.dirichlet([1] * 3)
        shown.append(
            ReviewImage(
                image=f"{i}.jpg",
                content_hash=f"{i:064x}",
                uri="",
                run_id="r",
                part="random" if i < random else "unsure",
                probability=random / population if i < random else None,
                why=("drawn at random",),
                predictions={
                    "mood": Prediction(choice=int(mood.argmax()), probs=tuple(mood.tolist())),
                    "level": Prediction(choice=int(level.argmax()), probs=tuple(level.tolist())),
                },
            )
        )
    schemes = {
        "mood": ReviewScheme(kind="categorical", labels=("good", "so-so", "bad")),
        "level": ReviewScheme(kind="ordinal", labels=("low", "mid", "high"), values=(1.0, 2.0, 3.0), range=(1.0, 3.0)),
    }
    return Review(input="out", model="m@1", runs=("r",), seed=0, population=population, exact=True, schemes=schemes, images=tuple(shown))


@pytest.fixture(scope="session")
def make_review() -> Any:
    return made_review
