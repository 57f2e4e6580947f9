"""URIs as text: secrets, storage, and rules for tables."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage import uris
from pipeline.storage.uris import public_message, scrub, storage_key, why_refused, without_secrets

AMZ = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAABCDEFGHIJKLMNOP%2F20260102&X-Amz-Date=20260102T000000Z&X-Amz-Expires=3600"


@pytest.mark.parametrize(
    ("uri", "name"),
    [("s3://bucket/key", "s3"), ("S3://bucket/key", "s3"), ("/home/me/x.jpg", "file"), ("x.jpg", "file"), ("file:///x", "file")],
)
def test_the_protocol_of_a_uri_is_what_stands_before_it(uri, name):
    assert uris.protocol(uri) == name


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:hunter2@host.org:8443/a.jpg", "https://host.org:8443/a.jpg"),
        ("https://h/a.jpg?" + AMZ + "&X-Amz-SignedHeaders=host&X-Amz-Signature=ab12", "https://h/a.jpg"),
        ("https://h/a.jpg?width=64&" + AMZ + "&x-amz-signature=ab12#top", "https://h/a.jpg?width=64#top"),
        ("https://h/a.jpg?X-Goog-Signature=1&X-Goog-Date=2&id=7", "https://h/a.jpg?id=7"),
        ("https://b.s3.amazonaws.com/a.jpg?AWSAccessKeyId=AKIA&Expires=17&Signature=x%3D", "https://b.s3.amazonaws.com/a.jpg"),
        ("https://acct.blob.core.windows.net/c/a.jpg?sv=2024&se=2026&sp=r&sig=x%2F", "https://acct.blob.core.windows.net/c/a.jpg"),
        ("https://h/a.jpg?access_token=x&page=2&token=y", "https://h/a.jpg?page=2"),
        ("https://h?token=x", "https://h"),
        ("s3://key:secret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("sftp://me:pw@host/a.jpg?sig=part-of-the-name", "sftp://host/a.jpg?sig=part-of-the-name"),
    ],
)
def test_passwords_and_signatures_are_left_out(uri, shown):
    assert without_secrets(uri) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "/data/photos",
            "s3://bucket/a?b.jpg",
            "relative/me@home.jpg",
            "s3://bucket/me@home.jpg",
            "abfs://box@acct.dfs.core.windows.net/x",
        ),
        *("https://h/view?id=7&se=2&sp=3&expires=never", "file:///home/me@x/a?sig=1.jpg", "memory://me@x/y", "", "https://h/a.jpg?"[:-1]),
    ],
)
def test_a_uri_without_secrets_stays_as_it_is(uri):
    assert without_secrets(uri) == uri


def test_a_key_tells_images_apart_and_is_not_shown():
    one, other = (without_secrets(f"https://h/get?key={name}&size=2") for name in ("photos/1.jpg", "photos/2.jpg"))
    assert one != other
    assert "photos" not in one
    assert one == without_secrets("https://h/get?key=photos/1.jpg&size=2")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_a_form_without_secrets(text):
    assert isinstance(without_secrets(text), str)
    assert "hunter2secret" not in without_secrets(f"https://me:hunter2secret@host/{text}")


@pytest.mark.parametrize(
    "message",
    [
        "403, message='Forbidden', url='https://me:hunter2@host/a.jpg?X-Amz-Signature=hunter2&x=1'",
        "could not use hunter2 at http://127.0.0.1",
        "Authorization: Bearer hunter2hunter2",
        'Invalid bucket name "me:hunter2@bucket"',
        "no such host: sig=hunter2&se=1",
        '{"access_token": "hunter2"}',
        "SecretAccessKey hunter2%2Fand%2Bmore is wrong",
        "redis://:hunter2@host/0 and :me:hunter2@host",
        'my_access_token = "hunter2"',
        "bearer \t hunter2hunter2",
    ],
)
def test_what_a_client_says_loses_its_secrets(message):
    options = {"key": "me", "client_kwargs": {"headers": {"Authorization": "hunter2"}}, "secret": "hunter2/and+more"}
    text = scrub(message, options)
    assert "hunter2" not in text
    assert text


def test_what_is_no_secret_is_still_said():
    options = {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9000", "region_name": "us-east-1"}, "token": "abc"}
    message = "Could not connect to http://127.0.0.1:9000/images/token of gold.jpg in us-east-1 (abc)"
    assert scrub(message, options) == message


PATTERNS = [value for value in vars(uris).values() if isinstance(value, re.Pattern)]


def unbounded(items):
    """Yield the repeats without an end in a parsed pattern."""
    for code, argument in items:
        if "REPEAT" in str(code) and argument[1] == re._constants.MAXREPEAT:
            yield code
        for part in argument if isinstance(argument, tuple | list) else ():
            if isinstance(part, re._parser.SubPattern):
                yield from unbounded(part)
            elif isinstance(part, list):
                for branch in part:
                    yield from unbounded(branch)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:30])
def test_no_pattern_goes_back_over_a_text_or_begins_anew_at_each_character(pattern):
    parsed = first = re._parser.parse(pattern.pattern, pattern.flags)
    assert {str(code) for code in unbounded(parsed)} <= {"POSSESSIVE_REPEAT"}
    while first[0][0] == re._constants.SUBPATTERN:
        first = first[0][1][-1]
    assert not list(unbounded(first[:1])), "an unbounded repeat needs something before it that limits where it begins"


def test_the_test_of_patterns_finds_a_repeat_wherever_it_is():
    for pattern in (r"\s+x", r"(?:a|(b*)c)", r"(?<!x)(?:(a+)y){2}", r"x(?=.*y)"):
        assert {str(code) for code in unbounded(re._parser.parse(pattern))} == {"MAX_REPEAT"}


@pytest.mark.parametrize("character", ["a", "a:", "a.", "token ", "token=", "://", "@", "x:y@", "\n", "bearer ", "1_"])
def test_of_a_long_message_its_beginning_is_scrubbed(character):
    message = "it failed: " + character * 100_000
    text = scrub(message, {})
    assert len(text) <= uris.LONGEST + 2
    assert text.startswith("it failed: ")
    assert text.endswith(" …")


@pytest.mark.parametrize(
    "secret", ["https://me:hunter2&3@host/x", "Bearer hunter2hunter2", "key:hunter2@host", "token = 'hunter2'", "hunter2/own"]
)
def test_a_secret_is_not_cut_in_half(secret):
    for before in range(uris.LONGEST - 60, uris.LONGEST + 2):
        text = scrub(f"failed: {'x' * (before - 9)} {secret} {'y' * 3000}", {"secret": "hunter2/own"})
        assert "hu" not in text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://a/list.csv", "s3://b/x.jpg", True),
        ("https://h/list.csv", "https://H/x.jpg", True),
        ("https://h/list.csv", "https://me@h/x.jpg?y", True),
        ("https://h/list.csv", "http://h/x.jpg", False),
        ("https://h/list.csv", "https://h:8443/x.jpg", False),
        ("https://h/list.csv", "https://h@evil/x.jpg", False),
        ("https://h/list.csv", "https://evil\\@h/x.jpg", False),
        ("sftp://h/list.csv", "sftp://evil/x.jpg", False),
        ("abfs://a@acct/x", "abfs://b@acct/x", True),
        ("abfs://a@acct/x", "abfs://a@evil/x", False),
        ("abfs://a/x", "abfs://a@evil/x", False),
    ],
)
def test_options_are_for_the_storage_they_were_given_for(one, other, same):
    assert (storage_key(one) == storage_key(other)) is same


@pytest.mark.parametrize(
    "uri",
    [
        *("file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd", "local:///etc/passwd", "/etc/passwd", "gs://b/x", ""),
        *("simplecache::file:///etc/passwd", "zip://x.jpg::file:///etc/archive.zip", "file::s3://b/x", "data://x", "s3://b/../other/x"),
        *("https:///../x\\@169.254.169.254/", "https://h/a b", "https://h/\n", "https://h\\x"),
    ],
)
def test_what_a_table_may_not_point_to_is_refused_with_a_reason(uri):
    assert why_refused(uri, frozenset({"s3", "https"}))


@pytest.mark.parametrize("uri", ["s3://b/x", "S3://b/x", "s3://b/a::b.jpg", "s3://b/a..b/c.jpg", "https://h/a/../b.jpg", "https://h/%20"])
def test_what_is_allowed_is_not(uri):
    assert why_refused(uri, frozenset({"s3", "https"})) is None


def test_an_error_becomes_one_line_without_secrets():
    error = OSError("HEAD https://me:hunter2@h/x?sig=hunter2&sv=1\nwas refused for hunter2key")
    assert public_message(error, {"key": "hunter2key"}) == "HEAD https://h/x was refused for …"
    assert public_message(TimeoutError(), {}) == "TimeoutError"
