"""One image of the input, as every kind of source lists it."""

from typing import NamedTuple

from pipeline.storage.uris import without_secrets


class Item(NamedTuple):
    """One image: its URI, and its size in bytes and its version, where the listing states them.

    An image within a file has the file's path as `container`, and as `position` its first byte in a .tar or its row in a Parquet file.
    `uri` holds no secrets: a link that needs some to be fetched, such as a signature, is in `link`.
    `image_id` is set only for an image that a table of ours lists already; otherwise the ID follows from `uri` and `version`.
    """

    uri: str
    size: int | None = None
    version: str = ""
    container: str | None = None
    position: int | None = None
    link: str | None = None
    image_id: int | None = None

    def redacted(self) -> "Item":
        """Return the item without secrets in `uri`; a URI that has some is kept whole in `link`."""
        uri = without_secrets(self.uri)
        return self if uri == self.uri else self._replace(uri=uri, link=self.uri)


def escaped(name: str) -> str:
    """Return a file's name with the bytes that are not UTF-8 escaped (`caf\\xe9.jpg`)."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
