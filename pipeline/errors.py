"""Three kinds of failure: of a user's setting (the run must not start), of the storage (the run stops), of an image (its row has it)."""

from ugrie.errors import GivenError
from ugrie.text import one_line

MESSAGE_LENGTH = 500


class UserError(GivenError):
    """A setting, input or output is wrong. The message is one line that names the thing and the remedy."""


class StorageError(RuntimeError):
    """The storage rejects the job itself, not one image. The run stops; the same --run-id resumes it once that is fixed."""


class RunError(RuntimeError):
    """The run stopped before its commit. The message is one line that says why, and how to resume."""


class ImageError(Exception):
    """One image can't be annotated. `status` becomes its row's status, the message its row's error, as `one_line`."""

    def __init__(self, status: str, message: str):
        super().__init__(one_line(message, MESSAGE_LENGTH))
        self.status = status

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.status, str(self))


STATUSES = {
    "ok": "annotated",
    "missing": "no object at this URI",
    "forbidden": "access denied by the object store or by the job's own rules",
    "timeout": "not read or not decoded in time",
    "unreadable": "another failure of the object store",
    "truncated": "fewer bytes received than listed",
    "changed": "changed since it was listed; the next listing has the new version",
    "too_large": "more bytes, pixels or memory than the limits allow",
    "not_an_image": "not an image of a supported format",
    "corrupt": "damaged image: its decoder can't finish",
    "decoder_crashed": "its decoder crashed, even in a process of its own",
}

TRANSIENT = ("missing", "forbidden", "timeout", "unreadable", "truncated", "changed")
"""Statuses that a later run may not find again, since they come from the storage and not from the image's bytes."""
