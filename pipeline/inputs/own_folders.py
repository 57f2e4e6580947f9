"""The output's own folders and pages within an input: they are no images of anybody's."""

import os

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.uris import storage_key, without_secrets
from pipeline.table.output_folder import ANNOTATIONS, ICEBERG_CATALOG, ICEBERG_NAME, INDEX, RUNS, WORK

OWN = (ANNOTATIONS, RUNS, WORK, INDEX, ICEBERG_NAME, ICEBERG_CATALOG)


def own_folders(fs: fsspec.AbstractFileSystem, path: str, uri: str, output: str, options: Options) -> tuple[str, ...]:
    """Return the paths of the output's own folders and files in the input's file system, real ones if it is local.

    `fs` and `path` are where the input `uri` is. Raises UserError where the input is the output, or one of its own folders, or lies in one.
    """
    output_fs, output_path = connect(output, options)
    if type(fs) is not type(output_fs) or storage_key(uri) != storage_key(output):
        return ()
    root, place = _real(output_fs, output_path), _real(fs, path)
    folders = tuple(f"{root.rstrip('/')}/{name}" for name in OWN)
    if place == root or any(f"{place}/".startswith(f"{folder}/") for folder in folders):
        shown = without_secrets(uri).rstrip("/")
        if place == root:
            raise UserError(f"--input and --output are the same folder, {shown}: name another output, such as {shown}/emotions")
        raise UserError(f"--input {shown} is among the output's own files: name a folder of images, or give --from-embeddings the output")
    return folders


def _real(fs: fsspec.AbstractFileSystem, path: str) -> str:
    return os.path.realpath(path) if isinstance(fs, LocalFileSystem) else path.rstrip("/")
