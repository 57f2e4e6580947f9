"""URIs as text: their secrets, the storage they name, and the rules for URIs in a table."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote_plus

from ugrie.text import one_line

# Protocols whose buckets share the credentials of one object store.
BUCKETS = ("s3", "s3a", "gs", "gcs")
WEB = ("http", "https")

# Query parameters that sign a link. They differ from signing to signing, and are no part of the image's name.
SIGNING = {
    *(f"x-amz-{name}" for name in ("algorithm", "credential", "date", "expires", "security-token", "signature", "signedheaders")),
    *(f"x-goog-{name}" for name in ("algorithm", "credential", "date", "expires", "signature", "signedheaders")),
    *("awsaccesskeyid", "googleaccessid", "key-pair-id", "signature", "sig"),
    *("token", "access_token", "auth_token", "id_token", "jwt", "auth", "api_key", "apikey", "api-key"),
    *("password", "passwd", "pwd", "secret", "client_secret"),
}
# Ordinary words that sign a link only beside the named parameter.
SIGNING_IN_CONTEXT = {
    "signature": {"expires", "policy"},
    "sig": {"se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"},
}

# Messages quote text of strangers, so each pattern takes time in proportion to the text: its unbounded repeats are possessive (`*+`), and
# none begins at every character.
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*+)://")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}+://[^\s'\"<>`]++")
_PARAMETER = re.compile(
    r"(?i)((?<![a-z])(?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|credential"
    r"|token|password|passwd|secret|api_?key)[\"']?\s*+[=:]\s*+[\"']?)[^\s&'\",<>)]++"
)
_USER = re.compile(r"(?<![^\s/'\"@])[^\s/'\"@:]*+:[^\s/'\"@]++@(?=[\w\[-])")
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s++[A-Za-z0-9+/_.~=-]{8,}+")
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")
_BOUNDARY = re.compile(r"[\s'\"<>`]")  # no secret that the patterns find goes beyond it
LONGEST = 2000  # characters of a message that are kept: a client may quote a whole table
_SECRET_OPTION = re.compile(r"(?i)key|secret|token|passw|credential|auth|sas|signature|cookie|connection_string")


def protocol(uri: str) -> str:
    """Return `s3` for `s3://bucket/key`, `file` for a local path."""
    match = _PROTOCOL.match(uri)
    return match[1].lower() if match else "file"


def without_secrets(uri: str) -> str:
    """Remove passwords and signatures: `https://user:password@host/x?id=7&X-Amz-Signature=1` becomes `https://host/x?id=7`.

    A URI without secrets stays as it is. Other query parameters stay, since they may name the image. A `key` may be either:
    it becomes a digest, which tells images apart and reveals nothing. Only http(s) has parameters: elsewhere a `?` is part
    of the name.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() in ("file", "local", "memory"):
        return uri
    authority, path = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if not scheme.lower().startswith(("abfs", "wasb")):  # container@account: not a user name
        authority = authority.rpartition("@")[2]
    if scheme.lower() in WEB:
        path, mark, fragment = path.partition("#")
        path, question, query = path.partition("?")
        query = "&".join(_public(query.split("&")))
        path = f"{path}{question if query else ''}{query}{mark}{fragment}"
    return f"{scheme}://{authority}{path}"


def _public(parameters: list[str]) -> Iterator[str]:
    """Yield the query parameters that are no secret."""
    names = [unquote_plus(parameter.partition("=")[0]).lower() for parameter in parameters]
    secret = SIGNING.union(*(words for signature, words in SIGNING_IN_CONTEXT.items() if signature in names))
    for name, parameter in zip(names, parameters, strict=True):
        if name == "key":
            yield f"key={hashlib.sha256(parameter.encode()).hexdigest()[:16]}"
        elif name not in secret:
            yield parameter


def scrub(text: str, options: dict[str, Any]) -> str:
    """Remove the secrets of `options`, passwords and signatures from a storage client's message. Of a long one the beginning is kept."""
    for value in sorted(_secrets(options), key=len, reverse=True):
        text = text.replace(value, "…").replace(quote(value, safe=""), "…")
    text = _beginning(text)
    text = _USER.sub("", _LINK.sub(lambda link: without_secrets(link[0]), text))
    text = _HEADER.sub(r"\1 …", _PARAMETER.sub(r"\1…", text))
    return _ACCESS_KEY.sub(r"\1…", text)


def public_message(error: Exception, options: dict[str, Any]) -> str:
    """Return a storage client's message as one line without secrets, or the error's name if it has none."""
    return one_line(scrub(str(error), options)) or type(error).__name__


def _beginning(text: str) -> str:
    """Cut a text of more than LONGEST characters, not within a secret: half a secret would not be recognised."""
    if len(text) <= LONGEST:
        return text
    end = max((match.start() for match in _BOUNDARY.finditer(text, 0, LONGEST)), default=0)
    return f"{text[:end]} …"


def _secrets(options: Any, secret: bool = False) -> set[str]:
    """Return the secret values in `options`, by the names they stand under."""
    if isinstance(options, dict):
        return set().union(*(_secrets(value, secret or bool(_SECRET_OPTION.search(str(name)))) for name, value in options.items()))
    if isinstance(options, list | tuple):
        return set().union(*(_secrets(value, secret) for value in options))
    return {options} if secret and isinstance(options, str) and len(options) > 3 else set()


def storage_key(uri: str) -> str:
    """Return a key of the storage that a URI names. Storage options are for URIs with the same key only.

    Buckets of one object store share their options; those of a host or an account are for no other. A web password is for
    its own scheme, host and port.
    """
    scheme, _, rest = uri.partition("://")
    name, authority = protocol(uri), re.split(r"[/?#\\]", rest, maxsplit=1)[0].lower()
    if name in BUCKETS or name in ("file", "local", "memory"):
        return ""
    if name.startswith(("abfs", "wasb")) or name == "az":
        return authority.partition("@")[2]
    host = authority.rpartition("@")[2]
    return f"{scheme.lower()}://{host}" if name in WEB else host


def why_refused(uri: str, protocols: frozenset[str]) -> str | None:
    """Return why a table must not point to a URI, or None if it may. `protocols`: the table's own and those the user allows."""
    name = protocol(uri)
    if name not in protocols:
        allowed = ", ".join(sorted(protocols))
        return f"the table may point to {allowed}, not to {name}://; allow it with --allow-protocols"
    rest = uri.partition("://")[2]
    if name in WEB and re.search(r"[\\\x00-\x20\x7f]", rest):
        return "a link with a backslash, a space or a control character, which programs read differently"
    if name not in ("file", "local", *WEB) and ".." in rest.split("/"):
        return "its path leads out of its folder (..)"
    return None
