"""deltalake reaches what fsspec reaches, with the same key."""

from dataclasses import replace

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.storage.filesystem import connect
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta
from pipeline.table_formats.delta_log import DeltaLog
from pipeline.table_formats.delta_storage import storage_options
from tests.plugins.outputs import Made


def test_a_key_that_is_refused_is_said(s3, tmp_path):
    made = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    made.commit("a", range(5))
    refused = replace(made, options=s3.refused)
    with pytest.raises(UserError, match=r"can't be read as a Delta table: .*lacked the necessary privileges.*403 Forbidden$") as error:
        DeltaLog(refused.folder)
    assert "\x1b" not in str(error.value)
    assert s3.refused["key"] not in str(error.value)


@pytest.mark.slow
def test_deltalake_is_told_what_fsspec_was(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://here:9")

    def told(**options):
        fs, _ = connect("s3://bucket/out", {"skip_instance_cache": True, **options})
        return storage_options(fs)

    aws = {"aws_conditional_put": "etag"}
    key = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    assert told() == aws | {"aws_endpoint_url": "http://here:9", "aws_allow_http": "true"}
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert told() == aws
    assert told(key="k", secret="s", token="t") == aws | key | {"aws_session_token": "t"}
    assert told(endpoint_url="https://there") == aws | {"aws_endpoint_url": "https://there"}
    client = {"endpoint_url": "http://there", "region_name": "eu-west-1", "aws_access_key_id": "k", "aws_secret_access_key": "s"}
    wanted = key | {"aws_endpoint_url": "http://there", "aws_allow_http": "true", "aws_region": "eu-west-1"}
    assert told(client_kwargs=client) == aws | wanted
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from the environment, as deltalake takes it too")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert told() == aws
    assert told(anon=True) == aws | {"aws_skip_signature": "true"}
    assert storage_options(fsspec.filesystem("file")) == {}


def test_a_profile_does_instead_of_options(s3, tmp_path, monkeypatch):
    given = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    given.commit("a", range(5))
    (tmp_path / "credentials").write_text(f"[night]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another key's")
    delta.add(OutputFolder(given.output, {"profile": "night", "endpoint_url": s3.endpoint}))
    assert given.shown().equals(given.rows())


def test_aws_variables_do_instead_of_options(s3, tmp_path, monkeypatch):
    given = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    given.commit("a", range(5))
    for name, value in {
        "ACCESS_KEY_ID": s3.key,
        "SECRET_ACCESS_KEY": s3.secret,
        "ENDPOINT_URL": s3.endpoint,
        "REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    delta.add(OutputFolder(given.output, {"skip_instance_cache": True}))
    assert given.shown().equals(given.rows())
    log = given.place[0].cat(f"{s3.bucket}/{tmp_path.name}/annotations/_delta_log/*.json", recursive=True)
    assert all(s3.secret.encode() not in data and s3.key.encode() not in data for data in log.values())
