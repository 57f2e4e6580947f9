"""Renders a page's template and the style of all pages into one HTML file."""

import datetime as dt
import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from pipeline.text import duration

FOLDER = Path(__file__).parent
GENERATOR = '<meta name="generator" content="UGRIE">'  # by which a page is known to be UGRIE's


def render(template: str, **values: Any) -> str:
    """Return a page as HTML. Jinja escapes every value; the Content-Security-Policy allows the page's own style by its digest."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"visible": _visible, "last_part": _last_part, "duration": duration, "utc": _utc}
    style = (FOLDER / "page.css").read_text()
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    own = {"style": Markup(style), "style_digest": digest, "generator": Markup(GENERATOR)}
    return environment.get_template(template).render(**values, **own)


def _visible(text: Any) -> str:
    """Escape unprintable characters, such as marks that change the direction of writing."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def _utc(time: dt.datetime | None) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if time else "an unknown time"
