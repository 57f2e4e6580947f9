"""URIs as text: what of them is secret, which storage they name, and what a table may not make of them."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote_plus

# Where a URI's host is the storage itself, options that hold a password are for that host only.
BUCKETS = ("s3", "s3a", "gs", "gcs")
WEB = ("http", "https")

# What makes a link a signed one. It is another with every signing, and no part of the image's name.
SIGNING = {
    *(f"x-amz-{name}" for name in ("algorithm", "credential", "date", "expires", "security-token", "signature", "signedheaders")),
    *(f"x-goog-{name}" for name in ("algorithm", "credential", "date", "expires", "signature", "signedheaders")),
    *("awsaccesskeyid", "googleaccessid", "key-pair-id", "signature", "sig"),
    *("token", "access_token", "auth_token", "id_token", "jwt", "auth", "api_key", "apikey", "api-key"),
    *("password", "passwd", "pwd", "secret", "client_secret"),
}
# These are words of their own as well: part of a signature only beside one.
BESIDE_A_SIGNATURE = {
    "signature": {"expires", "policy"},
    "sig": {"se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"},
}

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")
_PARAMETER = re.compile(
    r"(?i)((?<![a-z])(?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|credential"
    r"|(?:\w+_)?token|password|passwd|secret|api_?key)[\"']?\s*[=:]\s*[\"']?)[^\s&'\",<>)]+"
)
_USER = re.compile(r"[^\s/'\"@:]+:[^\s/'\"@]+@(?=[\w\[-])")
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.~=-]{8,}")
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")
_SECRET_OPTION = re.compile(r"(?i)key|secret|token|passw|credential|auth|sas|signature|cookie|connection_string")


def protocol(uri: str) -> str:
    """`s3` of `s3://bucket/key`, `file` of a local path."""
    named = _PROTOCOL.match(uri)
    return named[1].lower() if named else "file"


def without_secrets(uri: str) -> str:
    """`https://user:password@host/x?id=7&X-Amz-Signature=1` as `https://host/x?id=7`; a URI that has no secrets as it is.

    Parameters that don't sign stay, since they may name the image. A `key` is either: it stays as a digest, which tells
    images apart and shows nothing. Only http(s) has parameters: elsewhere a `?` is part of the name.
    """
    scheme, found, rest = uri.partition("://")
    if not found or scheme.lower() in ("file", "local", "memory"):
        return uri
    authority, path = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if not scheme.lower().startswith(("abfs", "wasb")):  # whose container@account names no user
        authority = authority.rpartition("@")[2]
    if scheme.lower() in WEB:
        path, mark, fragment = path.partition("#")
        path, asked, query = path.partition("?")
        query = "&".join(_public(query.split("&")))
        path = f"{path}{asked if query else ''}{query}{mark}{fragment}"
    return f"{scheme}://{authority}{path}"


def _public(parameters: list[str]) -> Iterator[str]:
    names = [unquote_plus(parameter.partition("=")[0]).lower() for parameter in parameters]
    secret = SIGNING.union(*(words for signature, words in BESIDE_A_SIGNATURE.items() if signature in names))
    for name, parameter in zip(names, parameters, strict=True):
        if name == "key":
            yield f"key={hashlib.sha256(parameter.encode()).hexdigest()[:16]}"
        elif name not in secret:
            yield parameter


def scrubbed(text: str, options: dict[str, Any]) -> str:
    """What a storage client says, without the options' secrets, passwords and signatures that it may quote."""
    for value in sorted(_secrets(options), key=len, reverse=True):
        text = text.replace(value, "…").replace(quote(value, safe=""), "…")
    text = _USER.sub("", _LINK.sub(lambda link: without_secrets(link[0]), text))
    text = _HEADER.sub(r"\1 …", _PARAMETER.sub(r"\1…", text))
    return _ACCESS_KEY.sub(r"\1…", text)


def _secrets(options: Any, secret: bool = False) -> set[str]:
    if isinstance(options, dict):
        return set().union(*(_secrets(value, secret or bool(_SECRET_OPTION.search(str(name)))) for name, value in options.items()))
    if isinstance(options, list | tuple):
        return set().union(*(_secrets(value, secret) for value in options))
    return {options} if secret and isinstance(options, str) and len(options) > 3 else set()


def storage_of(uri: str) -> str:
    """The storage that a URI names, as far as its options go: those of a host, or an account, are for no other.

    Buckets of one object store share their options; a page's password is for its own scheme, host and port.
    """
    scheme, _, rest = uri.partition("://")
    name, authority = protocol(uri), re.split(r"[/?#\\]", rest, maxsplit=1)[0].lower()
    if name in BUCKETS or name in ("file", "local", "memory"):
        return ""
    if name.startswith(("abfs", "wasb")) or name == "az":
        return authority.partition("@")[2]
    host = authority.rpartition("@")[2]
    return f"{scheme.lower()}://{host}" if name in WEB else host


def refusal(uri: str, protocols: frozenset[str]) -> str | None:
    """Why a table may not point there, or None. Its own kind of storage is allowed, and what the user allows beside."""
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
