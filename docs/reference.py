"""Write docs/reference.md: settings, exit codes and statuses, as the code has them.

python docs/reference.py docs/reference.md
"""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from pipeline.cli import EXIT_CODES
from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, TRANSIENT

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no", "array": "list", "object": "JSON object"}
LIMITS = {"minimum": "at least {:,}", "exclusiveMinimum": "more than {:,}", "maximum": "at most {:,}", "exclusiveMaximum": "less than {:,}"}
LIMITS |= {"minLength": "length at least {}", "maxLength": "length at most {}", "pattern": "matches `{}`"}
INTRODUCTION = """# Reference

`make docs` writes this page from `AnnotateConfig`, `EXIT_CODES` and `STATUSES` in `pipeline/`.

## Settings

Settings of `ugrie annotate` and `ugrie plan`; the latter has a few more (`--help`). Each is a flag, or a key of the TOML file given as
`--config`: `--fetch-timeout 20` is `fetch_timeout = 20` there. A flag wins over the file. Yes is `--resume` or `resume = true`, no is
`--no-resume` or `resume = false`. A list is one flag with commas, or an array. Where the default is empty, the last column states it, or
the setting is off.
"""


def reference() -> str:
    """Return the page as Markdown."""
    codes = [(str(code), meaning) for code, meaning in EXIT_CODES.items()]
    statuses = [(f"`{status}`", meaning, "yes" if status in TRANSIENT else "") for status, meaning in STATUSES.items()]
    return f"""{INTRODUCTION}
{_settings()}## Exit codes

{_table(("code", "meaning for `ugrie annotate`"), codes)}
## Statuses

The status of an image's row; [tables.md](tables.md#statuses) has more about each.

{_table(("status", "meaning", "retried for `--retry-days`"), statuses)}"""


def _settings() -> str:
    """Return a section with a table for each group of settings."""
    schema = AnnotateConfig.model_json_schema()
    groups = defaultdict(list)
    for name, field in AnnotateConfig.model_fields.items():
        description = re.sub(r"([*<])", r"\\\1", field.description or "")
        flag = f"`--{name.replace('_', '-')}`"
        groups[_group(field)].append((flag, _type(schema["properties"][name], schema), _default(field), description))
    header = ("setting", "type and limits", "default", "meaning")
    return "".join(f"### {name}\n\n{_table(header, groups[position, name])}\n" for position, name in sorted(groups))


def _group(field: FieldInfo) -> tuple[int, str]:
    """Return the position and the name of a setting's group."""
    (group,) = [group for entry in field.metadata if isinstance(entry, Parameter) for group in entry.group]
    return group.sort_key, group.name


def _type(setting: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a setting's type and limits in words, from its JSON Schema."""
    if "$ref" in setting:
        setting = schema["$defs"][setting["$ref"].rpartition("/")[2]]
    if "anyOf" in setting:
        return " or ".join(_type(option, schema) for option in setting["anyOf"] if option.get("type") != "null")
    if "enum" in setting or "const" in setting:
        return ", ".join(f"`{value}`" for value in setting.get("enum", [setting.get("const")]))
    kind = "date, `YYYY-MM-DD`" if setting.get("format") == "date" else TYPES[setting["type"]]
    items = f" of {_type(setting['items'], schema)}" if "enum" in setting.get("items", {}) else ""
    return ", ".join([kind + items, *(words.format(setting[limit]) for limit, words in LIMITS.items() if limit in setting)])


def _default(field: FieldInfo) -> str:
    """Return a setting's default as a user would write it."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "" if field.default_factory is dict else "new in each run"
    value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value in (None, "") else f"`{value:_}`" if isinstance(value, int) else f"`{value}`"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
