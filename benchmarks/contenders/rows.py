"""Shared by the contenders: arguments, listing, reading from disk or S3, and the output's columns."""

import argparse
import os

import fsspec
import pyarrow as pa

from pipeline.stages.prediction_columns import scheme_column
from ugrie.model.prediction import Prediction

BATCH = 64


def parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--input", required=True, help="a folder or an s3:// prefix of images")
    parser.add_argument("--output", required=True, help="the local file or folder to write Parquet to")
    parser.add_argument("--model", default="ugrie-tiny", help="the checkpoint")
    return parser


def files(folder: str) -> list[str]:
    """List the files below a folder or prefix, sorted."""
    fs, path = fsspec.core.url_to_fs(folder)
    found = sorted(fs.find(path))
    return [fs.unstrip_protocol(name) for name in found] if "://" in folder else found


def open_storage(uri: str) -> bytes:
    """Return the bytes of a file."""
    if "://" not in uri:
        with open(uri, "rb") as file:
            return file.read()
    fs, path = fsspec.core.url_to_fs(uri)
    return fs.cat_file(path)


def endpoint() -> dict[str, str]:
    """Return S3's endpoint and credentials from the environment."""
    names = {"endpoint": "AWS_ENDPOINT_URL", "key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    return {name: os.environ[variable] for name, variable in names.items()}


def rows(known: list[dict], prediction: Prediction) -> pa.Table:
    """Return the output's columns, except those that name a run."""
    columns = {name: [row[name] for row in known] for name in known[0]}
    columns["sentence"] = prediction.sentences()
    for scheme in prediction.template.schemes:
        columns[scheme.name] = scheme_column(scheme, prediction.probs[scheme.name], prediction.choices[scheme.name])
    return pa.table(columns)
