"""The record of a review, `review.json` beside the page: which images were chosen, why, with which probability, and what the model says.

`ugrie review --measure` reads it to weight the labels; a later review leaves its images out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError
from ugrie.atomic import write_whole

RECORD, PAGE, LABELS, IMAGES = "review.json", "index.html", "labels.csv", "images"
VERSION = 1

Part = Literal["random", "contradicting", "unsure", "representative"]


class ReviewScheme(BaseModel):
    """A scheme that people label: its labels in order, and an ordinal scheme's values and range."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["categorical", "ordinal"]
    labels: tuple[str, ...]
    polarities: tuple[str | None, ...] = ()
    values: tuple[float, ...] = ()
    range: tuple[float, float] | None = None


class Prediction(BaseModel):
    """What the model says of an image in one scheme: the index of its label, and the calibrated probability of each."""

    model_config = ConfigDict(frozen=True)

    choice: int
    probs: tuple[float, ...]


class ReviewImage(BaseModel):
    """A chosen image. `image` is its file in the review's images/, `part` the reason why it was drawn, and `why` says it in words.

    `probability` is that with which the random part draws an image of the corpus: the inclusion probability of survey sampling. Images of
    other parts have none.
    """

    model_config = ConfigDict(frozen=True)

    image: str
    content_hash: str
    uri: str
    run_id: str
    part: Part
    probability: float | None = Field(default=None, gt=0, le=1)
    why: tuple[str, ...]
    predictions: dict[str, Prediction]


class Review(BaseModel):
    """A review: `images` in the order in which they are shown, out of `population` different ones.

    `population` is an estimate unless `exact`. `unavailable` counts by reason the images that were drawn and could not be shown; others
    took their places.
    """

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    input: str
    model: str
    runs: tuple[str, ...]
    seed: int
    population: int
    exact: bool
    schemes: dict[str, ReviewScheme]
    images: tuple[ReviewImage, ...]
    unavailable: dict[str, int] = {}

    @property
    def random(self) -> list[ReviewImage]:
        """The images of the random part."""
        return [image for image in self.images if image.part == "random"]

    def write(self, folder: Path) -> None:
        text = self.model_dump_json(indent=1) + "\n"
        write_whole(folder / RECORD, lambda file: file.write_text(text))


def read_review(folder: Path) -> Review:
    """Read a review's record. Raises UserError."""
    path = folder / RECORD
    try:
        data = path.read_bytes()
    except OSError:
        raise UserError(f"{folder} is no review's folder: it has no {RECORD}, which `ugrie review` writes there") from None
    try:
        review = Review.model_validate_json(data)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} is no review's record ({place}: {error.errors()[0]['msg']}): restore it") from None
    if review.version > VERSION:
        raise UserError(f"{path} was written by a newer UGRIE: upgrade this one")
    return review


def hashes_of(folders: Sequence[Path]) -> frozenset[str]:
    """Return the content hashes of the images of earlier reviews. Raises UserError."""
    return frozenset(image.content_hash for folder in folders for image in read_review(folder).images)
