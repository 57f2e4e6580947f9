"""Renders a page's template and the style of all pages into one HTML file."""

import datetime as dt
import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from pipeline.text import duration

FOLDER = Path(__file__).parent
GENERATOR = '<meta name="generator" content="UGRIE">'  # by which a page is known to be UGRIE's


def render(template: str, *, folder: Path = FOLDER, style: str = "", script: str = "", **values: Any) -> str:
    """Return a page as HTML. Jinja escapes every value; the Content-Security-Policy allows its style and script by their digests.

    `folder` holds the template, if it is another room's; `style` is added to the style of all pages. Without a `script` none may run.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": _visible, "last_part": _last_part, "duration": duration, "utc": _utc}
    style = (FOLDER / "page.css").read_text() + style
    own = {
        "style": Markup(style),
        "style_digest": _digest(style),
        "script": Markup(script),
        "script_digest": _digest(script) if script else "",
        "generator": Markup(GENERATOR),
    }
    return environment.get_template(template).render(**values, **own)


def _digest(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _visible(text: Any) -> str:
    """Escape unprintable characters, such as marks that change the direction of writing."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def _utc(time: dt.datetime | None) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if time else "an unknown time"
