"""Annotates a corpus of images with the emotions they evoke.

    python jobs/annotate.py --input s3://bucket/images/ --output s3://bucket/emotions
    ray job submit --working-dir . -- python jobs/annotate.py --input … --output …

Every setting is a flag, or a key of the TOML file given as --config (a flag wins). The exit code is 0 when the run is
committed, 2 when a setting is wrong (nothing was started then), 1 when it failed; the same --run-id goes on where it stopped.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml
from pydantic import ValidationError

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError

app = App(name="annotate", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def annotate(config: Annotated[AnnotateConfig, Parameter(name="*")]) -> None:
    from pipeline.run import annotate
    from pipeline.summary import summary

    record = annotate(config)
    print(summary(record, config.output))


@app.meta.default
def main(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None) -> None:
    if config is not None:
        if not config.is_file():
            raise UserError(f"--config {config}: there is no such file")
        app.config = Toml(config)
    app(tokens, exit_on_error=False, print_error=False)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        app.meta(exit_on_error=False, print_error=False)
    except (CycloptsError, ValidationError, UserError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        sys.exit(2)
