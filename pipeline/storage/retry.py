"""Asking a storage again that failed for now: how long, how often, and after which errors.

Waits grow exponentially with full jitter, so that a thousand workers that were throttled together don't come back together.
The time is what bounds it. The storage clients try again too (s3fs, botocore); their tries lie within an attempt of ours,
which is cut off when its time is up, so that tries within tries never outlast the policy.
"""

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import tenacity
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from tenacity import RetryCallState

from pipeline.storage.ssrf import RefusedAddressError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

# Whoever is refused so is refused everything: the credentials are wrong or have run out.
CREDENTIALS = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId"),
    *("SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"),
}
NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError)
RENEWALS = 3
SHORT_ATTEMPTS = 4
# Answers of less than 500 that mean: not now.
BUSY = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "TooManyRequests"),
    *("RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "XAmzContentSHA256Mismatch"),
}
FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
FOR_NOW = (
    *(TimeoutError, ConnectionError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError),
    *(
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.ResponseStreamingError,
        boto.FlexibleChecksumError,
        ResponseParserError,
    ),
)
FINAL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EMLINK, errno.ENOTSUP}


class ShortError(OSError):
    """Fewer bytes came than there should be: the connection was cut, or the answer's length is wrong."""


@dataclass(frozen=True)
class Policy:
    """`seconds` is the whole time, of which an attempt has at most half. `attempts` bounds their number, where it is given.
    A file that keeps being short is asked for four times."""

    seconds: float = 120.0
    first_wait: float = 0.2
    longest_wait: float = 10.0
    attempts: int | None = None

    def ask(self, attempt: Callable[[float], T], renew: Callable[[], None] = lambda: None) -> T:
        """What `attempt` returns, which is told how many seconds it has. Raises what the last one raised.

        Credentials that are refused are asked for a few times only, each time after `renew`.
        """
        end = time.monotonic() + self.seconds

        def again(state: RetryCallState) -> None:
            if state.outcome and credentials_refused(state.outcome.exception()):
                renew()

        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: for_now(error) or credentials_refused(error) is not None),
            wait=tenacity.wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait),
            stop=self._stop,
            before_sleep=again,
            reraise=True,
        )
        return asking(lambda: attempt(max(min(self.seconds / 2, end - time.monotonic()), 0.001)))

    def _stop(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = self.attempts
        if credentials_refused(error) is not None:
            most = RENEWALS + 1
        elif isinstance(error, ShortError):
            most = SHORT_ATTEMPTS
        return tenacity.stop_before_delay(self.seconds)(state) or (most is not None and state.attempt_number >= most)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was made of, which is where a storage's own code is."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__


def cause(error: BaseException | None, kind: type[E]) -> E | None:
    """The error of that kind that it was made of, or None."""
    return next((each for each in _chain(error) if isinstance(each, kind)), None)


def _response(error: BaseException | None) -> dict[str, Any] | None:
    """What S3 answered, where that is what the error was made of."""
    found = (getattr(each, "response", None) for each in _chain(error))
    return next((response for response in found if isinstance(response, dict)), None)


def code(error: BaseException | None) -> str | None:
    """The code that S3 gave (SlowDown, NoSuchKey, 404 …), or None."""
    response = _response(error) or {}
    return response.get("Error", {}).get("Code")


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status that came with an error of botocore, aiohttp, gcsfs or adlfs, or None."""
    if (response := _response(error)) is not None:
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    given = (getattr(error, name, None) for name in ("status", "code", "status_code"))
    return next((number for number in given if isinstance(number, int)), None)


def credentials_refused(error: BaseException | None) -> str | None:
    """The code of an error that says that the credentials are expired or wrong, not that they don't suffice; or None."""
    if (given := code(error)) in CREDENTIALS:
        return given
    return next((type(each).__name__ for each in _chain(error) if isinstance(each, NO_CREDENTIALS)), None)


def for_now(error: BaseException | None) -> bool:
    """Whether it may go well the next time."""
    if not isinstance(error, Exception) or cause(error, RefusedAddressError):
        return False
    if (status := http_status(error)) is not None:
        return status >= 500 or status in (408, 425, 429) or code(error) in BUSY
    if isinstance(error, FOR_NOW):
        return True
    return isinstance(error, OSError) and not isinstance(error, FINAL) and error.errno not in FINAL_NUMBERS
