"""Retries of storage requests."""

import errno
import time

import aiohttp
import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from pipeline.errors import ImageError
from pipeline.storage import retry
from pipeline.storage.retry import Policy, ShortError


def s3_error(code, status):
    return translate_boto_error(ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"))


def web_error(status):
    return aiohttp.ClientResponseError(None, (), status=status)


QUICK = Policy(seconds=5, first_wait=0.001)


def asked(policy, *failures, renew=lambda: None):
    """Run an attempt that raises the failures in turn and then succeeds. Returns the number of attempts."""
    attempts = []

    def attempt(seconds):
        attempts.append(seconds)
        if len(attempts) <= len(failures):
            raise failures[len(attempts) - 1]
        return len(attempts)

    return policy.run(attempt, renew)


@pytest.mark.parametrize(
    "error",
    [
        *(s3_error("SlowDown", 503), s3_error("InternalError", 500), s3_error("503", 503), s3_error("RequestTimeout", 400)),
        *(s3_error("ConditionalRequestConflict", 409), web_error(500), web_error(429), web_error(502)),
        *(TimeoutError(), FSTimeoutError(), ConnectionResetError(), BrokenPipeError(), OSError(errno.EIO, "disk"), OSError("no number")),
        *(aiohttp.ClientPayloadError(), aiohttp.ServerDisconnectedError(), ShortError("3 bytes came of 10")),
        *(
            boto.ReadTimeoutError(endpoint_url=""),
            boto.EndpointConnectionError(endpoint_url=""),
            boto.ResponseStreamingError(error="x"),
            boto.FlexibleChecksumError(error_msg="x"),
        ),
    ],
    ids=repr,
)
def test_what_fails_for_now_is_asked_again(error):
    assert asked(QUICK, error, error) == 3


@pytest.mark.parametrize(
    "error",
    [
        *(s3_error("NoSuchKey", 404), s3_error("AccessDenied", 403), s3_error("PreconditionFailed", 412), s3_error("InvalidRange", 416)),
        *(s3_error("NoSuchBucket", 404), s3_error("InvalidArgument", 400), web_error(404), web_error(403), web_error(410)),
        *(FileNotFoundError(), PermissionError(), IsADirectoryError(), NotADirectoryError(), FileExistsError()),
        *(OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only"), ImageError("changed", "it is"), ValueError(), TypeError()),
    ],
    ids=repr,
)
def test_what_stays_so_is_asked_once(error):
    with pytest.raises(type(error)) as raised:
        asked(QUICK, error)
    assert raised.value is error


def test_what_keeps_failing_costs_the_policys_time_and_no_more():
    clock = time.monotonic()
    with pytest.raises(ConnectionResetError):
        asked(Policy(seconds=0.3, first_wait=0.01, longest_wait=0.05), *[ConnectionResetError()] * 1000)
    assert time.monotonic() - clock < 0.5


def test_no_attempt_has_more_than_half_of_the_time_or_than_is_left():
    given = []

    def attempt(seconds):
        given.append(seconds)
        time.sleep(0.05)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        Policy(seconds=0.2, first_wait=0.001).run(attempt)
    assert len(given) >= 3
    assert given[0] == pytest.approx(0.1, abs=0.01)
    assert given == sorted(given, reverse=True)
    assert given[-1] < 0.1


def test_attempts_can_be_bounded_and_short_files_are_asked_for_four_times():
    for policy, error, most in ((Policy(5, 0.001, attempts=2), TimeoutError(), 2), (QUICK, ShortError(), 4)):
        assert asked(policy, *[error] * (most - 1)) == most
        with pytest.raises(type(error)):
            asked(policy, *[error] * most)


def test_waits_are_random_and_grow_up_to_the_longest(monkeypatch):
    slept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    for _ in range(200):
        asked(Policy(1000, 1, 8), *[TimeoutError()] * 6)
    longest = [max(slept[i::6]) for i in range(6)]
    assert all(0.8 * most < wait <= most for wait, most in zip(longest, (1, 2, 4, 8, 8, 8), strict=True))
    assert min(slept[5::6]) < 2


@pytest.mark.parametrize("code", sorted(retry.CREDENTIALS))
def test_refused_credentials_are_renewed_before_each_of_a_few_more_attempts(code):
    renewed = []
    error = s3_error(code, 403)
    assert retry.credentials_refused(error) == code
    assert asked(QUICK, error, error, renew=lambda: renewed.append(code)) == 3
    assert len(renewed) == 2
    with pytest.raises(type(error)):
        asked(QUICK, *[error] * 4, renew=lambda: None)


def test_credentials_that_are_not_there_are_refused_ones():
    assert retry.credentials_refused(boto.NoCredentialsError()) == "NoCredentialsError"
    assert retry.credentials_refused(s3_error("AccessDenied", 403)) is None
    assert retry.credentials_refused(web_error(403)) is None
