"""The three kinds of failure: a user's (the run must not start), the storage's (it stops), an image's (its row says so)."""

from ugrie.errors import GivenError
from ugrie.text import one_line

MESSAGE_LENGTH = 500


class UserError(GivenError):
    """A setting, input or output is wrong. The message is one line that names the thing and the remedy."""


class StorageError(RuntimeError):
    """No image's failure: the storage refuses whoever asks. The run stops, and the same --run-id goes on once it is mended."""


class RunError(RuntimeError):
    """A run that stopped before it was committed. The message is one line that says why and how it goes on."""


class ImageError(Exception):
    """One image can't be annotated. `status` becomes its row's status, the message its row's error, as `one_line`."""

    def __init__(self, status: str, message: str):
        super().__init__(one_line(message, MESSAGE_LENGTH))
        self.status = status

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.status, str(self))


STATUSES = {
    "ok": "annotated",
    "missing": "there is no such object any more",
    "forbidden": "the object store or the job's own rules refuse it",
    "timeout": "it could not be read in time",
    "unreadable": "the object store failed in another way",
    "truncated": "fewer bytes came than the listing said",
    "changed": "not the object that was listed any more; the next listing will have it",
    "too_large": "more bytes or pixels than the limits allow",
    "not_an_image": "its bytes are no image of a format that is read",
    "corrupt": "an image that its decoder can't finish",
    "decoder_crashed": "its decoder crashed, even in a process of its own",
}

PASSING = ("missing", "forbidden", "timeout", "unreadable", "truncated", "changed")
"""The statuses that another night may not find: what they say is of the storage, not of the image's bytes."""
