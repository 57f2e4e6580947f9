"""What deltalake has to be told to reach the storage that fsspec reaches, and what it says where it can't."""

import os
import re
from urllib.parse import urlsplit

import fsspec
from s3fs import S3FileSystem

from pipeline.storage.filesystem import Options
from pipeline.storage.uris import scrubbed
from ugrie.text import one_line

PROTOCOLS = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # which fsspec and deltalake mean the same by
FOUND = ("env", "iam-role", "container-role", "assume-role-with-web-identity")  # where both botocore and deltalake look for a key
COLOUR = re.compile(r"\x1b\[[0-9;]*m|↳")
TRACE = re.compile(r"<\?xml|Stack backtrace|\n\s*0: ")


def storage_options(fs: fsspec.AbstractFileSystem) -> dict[str, str]:
    """What deltalake has to be told to reach the storage that fsspec reaches, with the same key.

    Of S3 that is the endpoint, and the key that botocore has found, from options, a profile or a login, but where deltalake finds it as
    well and can renew it. What else there is, and all of other storages, deltalake reads from variables of the environment.
    """
    if not isinstance(fs, S3FileSystem):
        return {}
    fs.connect()
    endpoint, credentials = fs._s3.meta.endpoint_url, fs._s3._get_credentials()
    own = not (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    told = credentials is not None and credentials.method not in FOUND
    key = fsspec.asyn.sync(fs.loop, credentials.get_frozen_credentials) if told else None
    other = "" if "AWS_SESSION_TOKEN" in os.environ else None  # which deltalake would take along with this key
    found = {
        "aws_access_key_id": key and key.access_key,
        "aws_secret_access_key": key and key.secret_key,
        "aws_session_token": key and (key.token or other),
        "aws_skip_signature": "true" if fs.anon else None,
        "aws_region": fs.client_kwargs.get("region_name"),
        "aws_endpoint_url": endpoint if own else None,
        "aws_allow_http": "true" if own and endpoint.startswith("http://") else None,
        "aws_conditional_put": "etag",
    }
    return {name: value for name, value in found.items() if value is not None}


def told(error: Exception, options: Options) -> str:
    """What deltalake says, without colours, traces and the pages that servers send."""
    text = TRACE.split(COLOUR.sub("", str(error)), maxsplit=1)[0]
    return one_line(scrubbed(text, options), 400) or type(error).__name__
