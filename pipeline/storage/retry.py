"""Retry policy for storage requests: how long, how often, and after which errors.

Waits grow exponentially with full jitter, so that a thousand workers throttled together don't return together. The deadline
limits the total time. The storage clients (s3fs, botocore) retry too, within one of our attempts. An attempt is cut off at its
timeout, so nested retries never outlast the policy.
"""

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
from tenacity import RetryCallState

from pipeline.storage.libraries import loaded
from pipeline.storage.ssrf import RefusedAddressError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

# S3 error codes for wrong or expired credentials, with which every request is refused.
CREDENTIALS = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId"),
    *("SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"),
}
NO_CREDENTIALS = (
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "botocore.exceptions.CredentialRetrievalError",
    "botocore.exceptions.TokenRetrievalError",
)
RENEWALS = 3
SHORT_ATTEMPTS = 4
# S3 error codes with an HTTP status below 500 that are worth a retry.
BUSY = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "TooManyRequests"),
    *("RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "XAmzContentSHA256Mismatch"),
}
STATUS = ("status", "code", "status_code")  # an error's attribute, or its response's
FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
TRANSIENT_ERRORS = (
    "aiohttp.ClientConnectionError",
    "aiohttp.ClientPayloadError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.exceptions.ResponseStreamingError",
    "botocore.exceptions.FlexibleChecksumError",
    "botocore.parsers.ResponseParserError",
    "httpx.TransportError",
    "httpx2.TransportError",
)
FINAL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EMLINK, errno.ENOTSUP}


class ShortError(OSError):
    """Fewer bytes arrived than expected: the connection was cut, or the response states a wrong length."""


class RangeError(OSError):
    """A server sent other bytes of a file than those that were asked for."""


@dataclass(frozen=True)
class Policy:
    """Total deadline in seconds; a single attempt gets at most half of it. `attempts` limits their number; None: no limit.

    Reads that stay short or wrong (ShortError, RangeError) are tried four times.
    """

    seconds: float = 120.0
    first_wait: float = 0.2
    longest_wait: float = 10.0
    attempts: int | None = None

    def run(self, attempt: Callable[[float], T], renew: Callable[[], None] = lambda: None) -> T:
        """Call `attempt(timeout in seconds)` until it succeeds, and return its result. Raises the last attempt's error.

        Refused credentials are retried three times only, each time after `renew`.
        """
        end = time.monotonic() + self.seconds

        def renew_if_refused(state: RetryCallState) -> None:
            if state.outcome and credentials_refused(state.outcome.exception()):
                renew()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: is_transient(error) or credentials_refused(error) is not None),
            wait=tenacity.wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait),
            stop=self._stop,
            before_sleep=renew_if_refused,
            reraise=True,
        )
        return retrying(lambda: attempt(max(min(self.seconds / 2, end - time.monotonic()), 0.001)))

    def _stop(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = self.attempts
        if credentials_refused(error) is not None:
            most = RENEWALS + 1
        elif isinstance(error, ShortError | RangeError):
            most = SHORT_ATTEMPTS
        return tenacity.stop_before_delay(self.seconds)(state) or (most is not None and state.attempt_number >= most)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, among which is the storage's own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__


def find_cause(error: BaseException | None, kind: type[E]) -> E | None:
    """Return the first error of a kind in the chain of causes, or None."""
    return next((each for each in _chain(error) if isinstance(each, kind)), None)


def _response(error: BaseException | None) -> dict[str, Any] | None:
    """Return S3's response from the chain of causes, or None."""
    responses = (getattr(each, "response", None) for each in _chain(error))
    return next((response for response in responses if isinstance(response, dict)), None)


def s3_error_code(error: BaseException | None) -> str | None:
    """Return S3's error code (SlowDown, NoSuchKey, 404 …), or None."""
    response = _response(error) or {}
    return response.get("Error", {}).get("Code")


def http_status(error: BaseException | None) -> int | None:
    """Return the HTTP status of an error of botocore, aiohttp, gcsfs, adlfs or Hugging Face's client, or None."""
    if (response := _response(error)) is not None:
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    values = (getattr(holder, name, None) for holder in (error, getattr(error, "response", None)) for name in STATUS)
    return next((value for value in values if isinstance(value, int)), None)


def credentials_refused(error: BaseException | None) -> str | None:
    """Return the code or name of an error about expired, wrong or absent credentials, or None. Denied access is no such error."""
    if (s3_code := s3_error_code(error)) in CREDENTIALS:
        return s3_code
    return next((type(each).__name__ for each in _chain(error) if isinstance(each, loaded(*NO_CREDENTIALS))), None)


def transient_errors() -> tuple[type[Exception], ...]:
    """Return the storage libraries' own classes of errors after which a retry may succeed."""
    return loaded(*TRANSIENT_ERRORS)


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error is transient: a retry may succeed."""
    if not isinstance(error, Exception) or find_cause(error, RefusedAddressError):
        return False
    if (status := http_status(error)) is not None:
        return status >= 500 or status in (408, 425, 429) or s3_error_code(error) in BUSY
    if isinstance(error, (TimeoutError, ConnectionError, *transient_errors())):
        return True
    return isinstance(error, OSError) and not isinstance(error, FINAL) and error.errno not in FINAL_NUMBERS
