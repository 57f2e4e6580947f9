"""The two kinds of failure: a user's (the run must not start) and an image's (its row says so, the run goes on)."""


class UserError(ValueError):
    """A setting, input or output is wrong. The message is one line that names the thing and the remedy."""


class ImageError(Exception):
    """One image can't be annotated. `status` becomes its row's status, the message its row's error."""

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status


STATUSES = {
    "ok": "annotated",
    "missing": "there is no such object any more",
    "forbidden": "the object store or the job's own rules refuse it",
    "timeout": "it could not be read in time",
    "unreadable": "the object store failed in another way",
    "truncated": "fewer bytes came than the listing said",
    "too_large": "more bytes or pixels than the limits allow",
    "not_an_image": "its bytes are no image of a format that is read",
    "corrupt": "an image that its decoder can't finish",
}
