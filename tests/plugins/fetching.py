"""Helpers to fetch images: a fetcher with small limits, and its result for each image."""

from pipeline.images.fetch import Fetcher
from pipeline.images.row_reader import RowReader
from pipeline.inputs.manifest import image_id
from pipeline.sources.source import allowed_protocols, list_items, storage_of, stored_column


def fetcher(source, **settings):
    column, concurrency = settings.pop("column", "uri"), settings.pop("concurrency", 3)
    field_id = settings.pop("field_id", None)
    protocols = allowed_protocols(str(source), settings.pop("allow", ()))
    defaults = {"options": {}, "max_bytes": 1000, "timeout": 10.0, "first_wait": 0.001}
    reader = RowReader(storage_of(str(source)), protocols=protocols, connections=concurrency, **defaults | settings)
    return Fetcher(reader, column, concurrency, field_id)


def rows(*found):
    return [{"image_id": image_id(item), **item._asdict()} for item in found]


def fetched(fetch, *found):
    """Return the bytes of each image, or its status and message."""
    return [data if isinstance(data, bytes) else (data.status, str(data)) for _, data in fetch.fetch(rows(*found))]


def fetch_all(source, column="uri", **settings):
    stored = stored_column(str(source), column, {})
    return fetched(fetcher(source, column=stored.name, field_id=stored.field_id, **settings), *list_items(str(source), column, {}))


def through(where, server, **settings):
    """Return a fetcher that reads S3 through a proxy, and the rows of a source as listed without the proxy."""
    defaults = {"options": server.options, "max_bytes": 10**6, "concurrency": 16, "first_wait": 0.01, "timeout": 9.0}
    return fetcher(where, **defaults | settings)
