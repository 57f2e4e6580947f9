"""The options by which deltalake reaches the storage that fsspec reaches, and its errors in plain words."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import fsspec

from pipeline.errors import UserError
from pipeline.storage.filesystem import Options
from pipeline.storage.libraries import is_s3
from pipeline.storage.uris import scrub
from ugrie.text import one_line

PROTOCOLS = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # that fsspec and deltalake understand alike
RENEWABLE = ("env", "iam-role", "container-role", "assume-role-with-web-identity")  # credentials that deltalake finds and renews itself
COLOUR = re.compile(r"\x1b\[[0-9;]*m|↳")
TRACE = re.compile(r"<\?xml|Stack backtrace|\n[ \t]*+0: ")


def storage_options(fs: fsspec.AbstractFileSystem) -> dict[str, str]:
    """Return deltalake's options for a file system of fsspec.

    S3: the endpoint, and the credentials that botocore found in options, a profile or a login, unless deltalake finds the same ones
    and can renew them. deltalake reads the rest, and everything of other storages, from environment variables.
    """
    if not is_s3(fs):
        return {}
    fs.connect()
    endpoint, credentials = fs._s3.meta.endpoint_url, fs._s3._get_credentials()
    is_aws = (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    pass_on = credentials is not None and credentials.method not in RENEWABLE
    key = fsspec.asyn.sync(fs.loop, credentials.get_frozen_credentials) if pass_on else None
    no_token = "" if "AWS_SESSION_TOKEN" in os.environ else None  # else deltalake would combine that token with this key
    found = {
        "aws_access_key_id": key and key.access_key,
        "aws_secret_access_key": key and key.secret_key,
        "aws_session_token": key and (key.token or no_token),
        "aws_skip_signature": "true" if fs.anon else None,
        "aws_region": fs.client_kwargs.get("region_name"),
        "aws_endpoint_url": None if is_aws else endpoint,
        "aws_allow_http": "true" if not is_aws and endpoint.startswith("http://") else None,
        "aws_conditional_put": "etag",
    }
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def readable(name: str, options: Options) -> Iterator[None]:
    """Within the context, an error of deltalake's is a UserError that names the table."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # deltalake's and the storage clients' errors have no common class
        raise UserError(f"{name} can't be read as a Delta table: {explain(error, options)}") from None


def explain(error: Exception, options: Options) -> str:
    """Return deltalake's message as one line, without colours, traces, secrets and the pages that servers send."""
    text = TRACE.split(COLOUR.sub("", str(error)), maxsplit=1)[0]
    return one_line(scrub(text, options), 400) or type(error).__name__
