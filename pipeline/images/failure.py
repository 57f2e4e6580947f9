"""Errors of storage clients and files, as the status and message of an image's row."""

from pipeline.errors import ImageError
from pipeline.inputs.parquet_pages import PageTooLargeError
from pipeline.storage import retry
from pipeline.storage.filesystem import Options
from pipeline.storage.libraries import loaded
from pipeline.storage.retry import ShortError
from pipeline.storage.ssrf import RefusedAddressError
from pipeline.storage.uris import public_message

CHANGED = "not the object that was listed any more; the next listing will have it"
OUT_OF_MEMORY = "reading it needs more memory than there is, or than decode_memory"
TIMEOUTS = ("botocore.exceptions.ReadTimeoutError", "botocore.exceptions.ConnectTimeoutError")
SHORT = (
    "aiohttp.ClientPayloadError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.exceptions.ResponseStreamingError",
    "botocore.exceptions.FlexibleChecksumError",
)


def image_error(error: Exception, options: Options, timeout: float, attempts: int = 1) -> ImageError:
    """Return the ImageError for an error, the last of so many attempts within `timeout` seconds. The secrets of `options` are removed."""
    if isinstance(error, ImageError):
        return error
    message = public_message(error, options)
    asked = f", asked {attempts} times" if attempts > 1 else ""
    if (refused := retry.find_cause(error, RefusedAddressError)) is not None:
        return ImageError("forbidden", str(refused))
    if isinstance(error, PageTooLargeError):
        return ImageError("too_large", f"the table's {message}")
    http_status = retry.http_status(error)
    if isinstance(error, FileNotFoundError) or http_status == 410:
        return ImageError("missing", "there is no such object")
    if isinstance(error, PermissionError) or http_status in (401, 403):
        return ImageError("forbidden", f"access denied: {message}")
    if http_status in (412, 416):
        return ImageError("changed", CHANGED)
    if isinstance(error, (TimeoutError, *loaded(*TIMEOUTS))):
        return ImageError("timeout", f"not read within {timeout:g} s{asked}")
    if isinstance(error, (ShortError, *loaded(*SHORT))):
        short = message if isinstance(error, ShortError) else "the answer was cut off"
        return ImageError("truncated", f"{short}{asked}")
    if isinstance(error, MemoryError):
        return ImageError("too_large", OUT_OF_MEMORY)
    if isinstance(error, IsADirectoryError):
        return ImageError("not_an_image", "a folder")
    return ImageError("unreadable", f"{type(error).__name__}: {message}{asked}")
