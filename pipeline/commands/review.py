"""Choose the images of a corpus that are most worth labelling, and write a page to label them on.

Of the output's committed rows it takes a random part, by which the model is
measured, and images that teach most: that represent the corpus, that the model
is unsure of, or whose labels contradict each other. The page needs no server
and no network; it saves labels.csv, which `ugrie evaluate` and `ugrie train`
read in the review's folder.

--merge makes one labels.csv of several people's files. --measure says how good
the model is on the whole corpus, and how far people agree. docs/adapting.md
goes through all of it.

Exit codes: 0, 1 if the storage failed, 2 if the output, a file of labels or a
setting is wrong.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli import command_app, storage_options
from pipeline.errors import UserError
from pipeline.logs import start_log

EXAMPLE = """\
ugrie review --input s3://bucket/emotions --output review
ugrie review --measure review/labels.csv"""
app = command_app("review", __doc__, EXAMPLE)

MAX_COUNT = 1000


@app.default
def review(
    *,
    # `input` is what the flag is called.
    source: Annotated[str | None, Parameter(name="--input", help="Folder or prefix with annotations/ and runs/: a run's --output")] = None,
    output: Annotated[Path | None, Parameter(help="Folder to write the review to, a new one; with --merge, the review's own")] = None,
    nights: Annotated[
        str, Parameter(help="Dates of the runs whose images to choose from, comma-separated; by default all of the newest model")
    ] = "",
    schemes: Annotated[str, Parameter(help="Schemes to label, comma-separated; by default all that the newest run has")] = "",
    count: Annotated[int, Parameter(help="Number of images")] = 100,
    random_share: Annotated[float, Parameter(help="Share of them that is drawn at random, by which the model is measured")] = 0.25,
    seed: Annotated[int, Parameter(help="Seed of the random part: the same one chooses the same images")] = 0,
    after: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, help="Folders of earlier reviews, whose images are left out")] = (),
    suppress: Annotated[
        str | None, Parameter(help="List of images that are never shown: one URI, image_id or content_hash a line, or a .parquet of them")
    ] = None,
    merge: Annotated[
        tuple[Path, ...], Parameter(consume_multiple=True, help="Files that people saved, to merge into labels.csv in --output")
    ] = (),
    measure: Annotated[Path | None, Parameter(help="labels.csv in a review's folder, to measure the model by")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write the measures to, as JSON")] = None,
    options: Annotated[str, Parameter(name="--storage-options", help="fsspec options for input and images, as a JSON object")] = "{}",
) -> None:
    start_log(line="%(message)s")
    tasks = [flag for flag, given in (("--input", source), ("--merge", merge), ("--measure", measure)) if given]
    if len(tasks) != 1:
        raise UserError(f"give one of --input, --merge and --measure{', not ' + ' and '.join(tasks) if tasks else ''}")
    if measure is not None:
        _measure(measure, json_file)
        return
    if output is None:
        raise UserError(f"{tasks[0]} needs --output, the review's folder")
    if merge:
        from pipeline.review import labels
        from pipeline.review.record import LABELS, read_review

        answers = labels.merge(merge, output, read_review(output))
        people = len({answer.person for answer in answers})
        print(f"{output / LABELS}: {len(answers)} rows of {people} {'person' if people == 1 else 'people'}")
        return
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"--count {count}: must be from 1 to {MAX_COUNT}")
    if not 0 < random_share <= 1:
        raise UserError(f"--random-share {random_share:g}: must be above 0, since the random part measures the model, and at most 1")
    from pipeline.review import page
    from pipeline.review.record import PAGE, hashes_of
    from pipeline.table.output_folder import OutputFolder
    from pipeline.table.suppressed import NOTHING, read_list

    assert source is not None
    folder = OutputFolder(source, storage_options(options))
    suppressed = read_list(suppress, folder.options)[1] if suppress else NOTHING
    settings = page.Settings(count, random_share, seed, _dates(nights), _names(schemes), hashes_of(after), suppressed)
    written = page.write(folder, output, settings)
    about = "" if written.exact else "about "
    images = f"{len(written.images)} of {about}{written.population:,} different images, {len(written.random)} drawn at random"
    print(f"{images}\nopen {output / PAGE} in a browser, and save labels.csv into {output}")


def _measure(file: Path, json_file: Path | None) -> None:
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise UserError(f"--json {json_file}: must be a file in an existing folder")
    from pipeline.review.labels import read_answers
    from pipeline.review.record import read_review

    try:
        from pipeline.review.measure import measure, table
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: measuring needs UGRIE's train extra: pip install 'ugrie[train]'") from None
    review = read_review(file.absolute().parent)
    measured = measure(review, read_answers(file, review))
    print(table(measured))
    if json_file is not None:
        json_file.write_text(json.dumps(measured, indent=1) + "\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _dates(text: str) -> tuple[dt.date, ...]:
    try:
        return tuple(dt.date.fromisoformat(part) for part in _names(text))
    except ValueError:
        raise UserError(f"--nights {text}: must be dates, such as 2026-11-28,2026-11-29") from None
