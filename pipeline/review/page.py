"""Writes a review: chooses images of committed rows, fetches them, and writes the page to label them on.

REVIEW/index.html      the page, one file that needs no server and no network
REVIEW/images/         the images, cropped as the model sees them; `ugrie train` and `ugrie evaluate` read them beside labels.csv
REVIEW/review.json     which images were chosen, and why: the record
"""

import datetime as dt
import hashlib
import json
import logging
import shutil
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import StorageError, UserError
from pipeline.report.render import render
from pipeline.report.row_groups import RunFile, run_files
from pipeline.report.run_selection import are_alike
from pipeline.report.thumbnails import Making, Thumbnail, settings_of, thumbnails
from pipeline.review.choose import Pick, choose
from pipeline.review.pools import Candidates, Reader
from pipeline.review.record import IMAGES, PAGE, RECORD, Prediction, Review, ReviewImage, ReviewScheme
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table.schema import SchemeMetadata
from pipeline.table.suppressed import NOTHING, Suppressed
from ugrie.text import did_you_mean

logger = logging.getLogger(__name__)
FOLDER = Path(__file__).parent
MAKING = Making(size=384, quality=90, seconds=600.0)  # at least what the image towers read: 224 to 336 pixels along each side
ROUNDS = 5  # of drawing others for images that can't be fetched
MAX_LABELS = 32  # of a scheme, since each has a key of its own


@dataclass(frozen=True)
class Settings:
    """What to review: `nights` are dates (all by default), `schemes` names (all by default), `without` content hashes to leave out.

    Images that are `suppressed` are left out as well.
    """

    count: int
    random_share: float
    seed: int
    nights: Sequence[dt.date] = ()
    schemes: Sequence[str] = ()
    without: frozenset[str] = frozenset()
    suppressed: Suppressed = NOTHING


@dataclass
class Fetched:
    """The images that were fetched so far, by content hash, and the hashes of those that can't be shown with the reason."""

    jpegs: dict[str, bytes] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def write(output: OutputFolder, folder: Path, settings: Settings) -> Review:
    """Write a review to a new folder. Raises UserError."""
    if "://" in str(folder) or folder.is_file():
        raise UserError(f"--output {folder} must be a local folder: a browser opens the page from there")
    if (folder / RECORD).exists():
        raise UserError(f"--output {folder} holds a review already: give another folder, so that labels stay with their images")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--output {folder} is not empty: give a new folder")
    records = select_runs(past_runs(output), settings.nights)
    with output.readable():
        try:
            files = run_files(output, records)
            schemes = select_schemes(files, settings.schemes)
            files = [file for file in files if schemes.keys() <= file.schemes.keys()]
            reader = Reader(output, files, schemes, settings.seed, settings.without, settings.suppressed)
            candidates = reader.candidates(settings.count)
        except (OSError, StorageError, KeyError, pa.ArrowException) as error:
            raise UserError(f"the table can't be read: {public_message(error, output.options)}; check its files") from None
    if not len(candidates):
        raise UserError("there is no image to review: every row failed, or is in an earlier review")
    fetched = Fetched()
    picks = _available(output, records, candidates, schemes, settings, fetched)
    if not picks:
        reason, _ = Counter(fetched.problems.values()).most_common(1)[0]
        raise UserError(f"none of the images can be fetched any more, the most frequent reason is: {reason}")
    review = _review(output, records, candidates, schemes, settings, picks, fetched)
    _write(folder, review, fetched.jpegs)
    if fetched.problems:
        reason, most = Counter(fetched.problems.values()).most_common(1)[0]
        logger.warning("%d images can't be shown, others took their places; %d because: %s", len(fetched.problems), most, reason)
    return review


def select_runs(known: Sequence[RunRecord], nights: Sequence[dt.date]) -> list[RunRecord]:
    """Return the runs of those dates, or all, that say what the newest of them says; earliest first. Raises UserError."""
    with_files = sorted((run for run in known if run.files), key=lambda run: run.order)
    if not with_files:
        raise UserError("the output holds no committed run with images: check --input")
    dates = sorted({run.date for run in with_files})
    for night in nights:
        if night not in dates:
            raise UserError(f"--nights {night}: no run of that date holds images: its runs are of {dates[0]} to {dates[-1]}")
    found = [run for run in with_files if not nights or run.date in nights]
    return [run for run in found if are_alike(run, found[-1])]


def select_schemes(files: Sequence[RunFile], names: Sequence[str]) -> dict[str, SchemeMetadata]:
    """Return the schemes of those names, or those of the newest file. Raises UserError."""
    known: dict[str, SchemeMetadata] = {}
    for file in files:
        known |= file.schemes
    for name in names:
        if name not in known:
            raise UserError(f"--schemes {name}: no run has this scheme{did_you_mean(name, known)}; they have {', '.join(known)}")
    found = {name: known[name] for name in names or files[-1].schemes}
    for name, scheme in found.items():
        if len(scheme.labels) > MAX_LABELS:
            raise UserError(f"--schemes: {name} has {len(scheme.labels)} labels, a page has keys for {MAX_LABELS}: choose other schemes")
    if not any(found.keys() <= file.schemes.keys() for file in files):
        raise UserError(f"--schemes: no run has all of {', '.join(found)}: review them one by one")
    return found


def _available(
    output: OutputFolder,
    records: Sequence[RunRecord],
    candidates: Candidates,
    schemes: Mapping[str, SchemeMetadata],
    settings: Settings,
    fetched: Fetched,
) -> list[Pick]:
    """Choose images and fetch them; choose again without those that can't be fetched."""
    usable = np.ones(len(candidates), bool)
    for _ in range(ROUNDS):
        picks = choose(candidates, schemes, settings.count, settings.random_share, usable)
        wanted = [pick for pick in picks if candidates.rows[pick.row].content_hash not in fetched.jpegs]
        for content_hash, thumbnail in _fetch(output, records, candidates, wanted).items():
            if thumbnail.jpeg is None:
                fetched.problems[content_hash] = thumbnail.problem or ""
            else:
                fetched.jpegs[content_hash] = b64decode(thumbnail.jpeg)
        usable &= [row.content_hash not in fetched.problems for row in candidates.rows]
        if all(usable[pick.row] for pick in picks):
            return picks
    return [pick for pick in picks if usable[pick.row]]


def _fetch(output: OutputFolder, records: Sequence[RunRecord], candidates: Candidates, picks: Sequence[Pick]) -> dict[str, Thumbnail]:
    found: dict[str, Thumbnail] = {}
    images = [candidates.rows[pick.row] for pick in picks]
    for run in sorted({image.run for image in images}):
        found |= thumbnails(output, settings_of(records[run], output), [image for image in images if image.run == run], MAKING)
    return found


def _review(
    output: OutputFolder,
    records: Sequence[RunRecord],
    candidates: Candidates,
    schemes: Mapping[str, SchemeMetadata],
    settings: Settings,
    picks: Sequence[Pick],
    fetched: Fetched,
) -> Review:
    images = []
    for pick in picks:
        row = candidates.rows[pick.row]
        predictions = {
            name: Prediction(
                choice=int(candidates.choices[name][pick.row]),
                probs=tuple(round(float(p), 6) for p in candidates.probs[name][pick.row]),
            )
            for name in schemes
        }
        images.append(
            ReviewImage(
                image=f"{row.content_hash[:16]}.jpg",
                content_hash=row.content_hash,
                uri=without_secrets(row.uri),
                run_id=records[row.run].run_id,
                part=pick.part,
                probability=pick.probability,
                why=pick.why,
                predictions=predictions,
            )
        )
    # In random order: who stops half-way has labelled a random half of each part.
    order = np.random.default_rng(settings.seed).permutation(len(images))
    return Review(
        input=without_secrets(output.uri),
        model=records[-1].model,
        runs=tuple(record.run_id for record in records),
        seed=settings.seed,
        population=candidates.population,
        exact=candidates.exact,
        schemes={
            name: ReviewScheme(
                kind="ordinal" if scheme.kind == "ordinal" else "categorical",
                labels=tuple(scheme.labels),
                polarities=tuple(scheme.polarities or ()),
                values=tuple(scheme.values or ()),
                range=None if scheme.range is None else (scheme.range[0], scheme.range[1]),
            )
            for name, scheme in schemes.items()
        },
        images=tuple(sorted(images, key=lambda image: image.content_hash)[i] for i in order),
        unavailable=dict(Counter(fetched.problems.values()).most_common()),
    )


def _write(folder: Path, review: Review, jpegs: Mapping[str, bytes]) -> None:
    """Write the folder, whole or not at all."""
    part = folder.absolute().with_name(f".{folder.absolute().name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of an attempt that was interrupted
        (part / IMAGES).mkdir(parents=True)
        for image in review.images:
            (part / IMAGES / image.image).write_bytes(jpegs[image.content_hash])
        (part / PAGE).write_text(page(review, jpegs), encoding="utf-8")
        review.write(part)
        if folder.exists():
            folder.rmdir()  # which is empty: `write` has checked it
        part.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror or error}; check --output") from None


def page(review: Review, jpegs: Mapping[str, bytes]) -> str:
    """Return the page as HTML, with the images in it."""
    from markupsafe import Markup

    images: list[dict[str, Any]] = []
    for image in review.images:
        predictions = {}
        for name, prediction in image.predictions.items():
            values = review.schemes[name].values
            value = float(np.dot(values, prediction.probs)) if values else None
            predictions[name] = {"choice": prediction.choice, "probs": prediction.probs, "value": value}
        jpeg = b64encode(jpegs[image.content_hash]).decode()
        images.append({"image": image.image, "why": image.why, "predictions": predictions, "jpeg": jpeg})
    schemes = {name: {"kind": s.kind, "labels": s.labels, "values": s.values} for name, s in review.schemes.items()}
    identity = hashlib.sha256("\n".join(image.content_hash for image in review.images).encode()).hexdigest()[:16]
    data = json.dumps({"id": identity, "schemes": schemes, "images": images}, ensure_ascii=False)
    # Within <script>, HTML ends at "</" and knows no escapes but JSON's own.
    escaped = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return render(
        "review.html.jinja",
        folder=FOLDER,
        style=(FOLDER / "review.css").read_text(),
        script=(FOLDER / "review.js").read_text(),
        review=review,
        data=Markup(escaped),
    )
