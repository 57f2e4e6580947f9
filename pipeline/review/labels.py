"""Labels that people gave on a review's page: reads the page's files, and merges those of several people into one labels.csv.

A row is one person's answers about one image. `ugrie train` and `ugrie evaluate` read the file as it is: the column `image` names a file
in images/, and each scheme has a column of its own. An empty cell is no label. `cant_tell` lists the schemes that the person could not
answer, and `not_for_set` is "yes" for an image that does not belong to the set.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.review.record import LABELS, Review, ReviewScheme
from ugrie.atomic import write_whole
from ugrie.text import did_you_mean

IMAGE, PERSON, CANT_TELL, NOT_FOR_SET = "image", "person", "cant_tell", "not_for_set"
YES = "yes"
MAX_BYTES = 50_000_000  # of a file of labels


@dataclass(frozen=True)
class Answer:
    """One person's answers about one image: the index of the label by scheme."""

    image: str
    person: str
    labels: dict[str, int]
    cant_tell: tuple[str, ...] = ()
    not_for_set: bool = False


def read_answers(path: Path, review: Review) -> list[Answer]:
    """Read a file of the page. Of a person's rows about an image the last counts. Raises UserError, which names the line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has more than {MAX_BYTES:,} bytes: give the labels.csv that a review's page saved")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8: give the labels.csv that a review's page saved") from None
    try:
        answers = list(_answers(path, text, review))
    except csv.Error as error:
        raise UserError(f"{path} can't be read as a table: {error}") from None
    return list({(answer.image, answer.person): answer for answer in answers}.values())


def _answers(path: Path, text: str, review: Review) -> Iterator[Answer]:
    lines = csv.DictReader(io.StringIO(text, newline=""))
    columns = lines.fieldnames or []
    if IMAGE not in columns:
        raise UserError(f"{path} has no column '{IMAGE}': give the labels.csv that a review's page saved")
    known = {image.image for image in review.images}
    for row in lines:
        where = f"{path}, line {lines.line_num}"
        cells = {name: (row.get(name) or "").strip() for name in columns}
        if cells[IMAGE] not in known:
            raise UserError(f"{where}: '{cells[IMAGE]}' is no image of this review: is it another review's file?")
        yield Answer(
            cells[IMAGE],
            cells.get(PERSON) or path.stem,
            {name: label_index(scheme, cells[name], f"{where}, {name}") for name, scheme in review.schemes.items() if cells.get(name)},
            tuple(name for name in cells.get(CANT_TELL, "").split() if name in review.schemes),
            cells.get(NOT_FOR_SET, "").casefold() == YES,
        )


def label_index(scheme: ReviewScheme, word: str, where: str) -> int:
    """Return the index of a label by its name, or of an ordinal scheme's by its value. Raises UserError, which begins with `where`."""
    if scheme.kind == "ordinal":
        try:
            return scheme.values.index(float(word))
        except ValueError:
            levels = ", ".join(f"{value:g}" for value in scheme.values)
            raise UserError(f"{where}: '{word}' is no level of the scale: {levels}") from None
    if word not in scheme.labels:
        raise UserError(f"{where}: '{word}' is no label{did_you_mean(word, scheme.labels)}: {', '.join(scheme.labels)}")
    return scheme.labels.index(word)


def merge(paths: Sequence[Path], folder: Path, review: Review) -> list[Answer]:
    """Write the answers of several files to the labels.csv of a review's folder, and return them. Raises UserError."""
    answers: dict[tuple[str, str], Answer] = {}
    unnamed: dict[str, Path] = {}
    for path in paths:
        found = read_answers(path, review)
        people = {answer.person for answer in found}
        if path.stem in people and (other := unnamed.setdefault(path.stem, path)) != path:
            raise UserError(f"{other} and {path} don't say whose they are, and have the same name: rename one, such as anna.csv")
        answers |= {(answer.image, answer.person): answer for answer in found}
    merged = sorted(answers.values(), key=lambda answer: (answer.image, answer.person))
    text = to_csv(merged, review)
    write_whole(folder / LABELS, lambda file: file.write_text(text))
    return merged


def to_csv(answers: Sequence[Answer], review: Review) -> str:
    """Return answers as the page writes them."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([IMAGE, PERSON, *review.schemes, CANT_TELL, NOT_FOR_SET])
    for answer in answers:
        cells = [_cell(scheme, answer.labels.get(name)) for name, scheme in review.schemes.items()]
        writer.writerow([answer.image, answer.person, *cells, " ".join(answer.cant_tell), YES if answer.not_for_set else ""])
    return lines.getvalue()


def _cell(scheme: ReviewScheme, index: int | None) -> str:
    if index is None:
        return ""
    return f"{scheme.values[index]:g}" if scheme.kind == "ordinal" else scheme.labels[index]
