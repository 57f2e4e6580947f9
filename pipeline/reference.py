"""docs/reference.md, made of the settings, exit codes and statuses that there are.

python -m pipeline.reference docs/reference.md
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from pipeline.cli import EXIT_CODES
from pipeline.config import AnnotateConfig
from pipeline.errors import PASSING, STATUSES

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no", "array": "list", "object": "JSON object"}
LIMITS = {"minimum": "at least {:,}", "exclusiveMinimum": "more than {:,}", "maximum": "at most {:,}", "exclusiveMaximum": "less than {:,}"}
LIMITS |= {"minLength": "length at least {}", "maxLength": "length at most {}", "pattern": "as `{}`"}
HEAD = """# Reference

`make docs` writes this page, from `AnnotateConfig`, `EXIT_CODES` and `STATUSES` in `pipeline/`.

## Settings

Of `jobs/annotate.py`, and of `jobs/plan.py`, which has some more (`--help`). Each is a flag, or a key of the TOML file given as `--config`:
`--fetch-timeout 20` is `fetch_timeout = 20` there. A flag wins. Yes is `--resume` or `resume = true`, no is `--no-resume` or
`resume = false`; a list is one flag with commas, or an array. A setting without a default is as the last column says, or nothing.
"""


def reference() -> str:
    """The page, as Markdown."""
    schema = AnnotateConfig.model_json_schema()
    settings = [
        (f"`--{name.replace('_', '-')}`", _takes(schema["properties"][name], schema), _default(field), re.sub(r"([*<])", r"\\\1", about))
        for name, field in AnnotateConfig.model_fields.items()
        if (about := field.description)
    ]
    codes = [(str(code), meaning) for code, meaning in EXIT_CODES.items()]
    statuses = [(f"`{status}`", meaning, "yes" if status in PASSING else "") for status, meaning in STATUSES.items()]
    return f"""{HEAD}
{_table(("setting", "takes", "default", "what it is"), settings)}
## Exit codes

{_table(("code", "of `jobs/annotate.py`"), codes)}
## Statuses

Of an image's row; [the table](tables.md#statuses) says more about each.

{_table(("status", "meaning", "tried again by `--retry-failed`"), statuses)}"""


def _takes(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """A setting's type and limits in words, out of what JSON Schema says of it."""
    if "$ref" in about:
        about = schema["$defs"][about["$ref"].rpartition("/")[2]]
    if "anyOf" in about:
        return " or ".join(_takes(one, schema) for one in about["anyOf"] if one.get("type") != "null")
    if "enum" in about or "const" in about:
        return ", ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    kind = "date, `YYYY-MM-DD`" if about.get("format") == "date" else TYPES[about["type"]]
    of = f" of {_takes(about['items'], schema)}" if "enum" in about.get("items", {}) else ""
    return ", ".join([kind + of, *(words.format(about[limit]) for limit, words in LIMITS.items() if limit in about)])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        return "" if field.default_factory is dict else "made for each run"
    value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value in (None, "") else f"`{value:_}`" if isinstance(value, int) else f"`{value}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
