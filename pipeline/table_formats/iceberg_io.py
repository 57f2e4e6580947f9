"""pyiceberg's files through the output's own file system: with its options and credentials, with retries, and whole or not at all."""

from io import BytesIO
from typing import Any

import fsspec
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.typedef import EMPTY_DICT, Properties

from pipeline.storage.files import list_with_retries, open_file, write_atomic
from pipeline.storage.filesystem import connect


class StorageIO(FileIO):
    """A FileIO for one file system, by default the local disk. `pyiceberg.io.load_file_io` gives it the properties alone."""

    def __init__(self, properties: Properties = EMPTY_DICT, fs: fsspec.AbstractFileSystem | None = None):
        super().__init__(properties)
        self.fs = connect("/", {})[0] if fs is None else fs

    def new_input(self, location: str) -> "StoredFile":
        return StoredFile(location, self.fs)

    def new_output(self, location: str) -> "StoredFile":
        return StoredFile(location, self.fs)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self.fs.rm_file(self.new_input(location if isinstance(location, str) else location.location).path)


class StoredFile(InputFile, OutputFile):
    """A file to read, or to write once: it exists when it is closed."""

    def __init__(self, location: str, fs: fsspec.AbstractFileSystem):
        super().__init__(location)
        self.fs, self.path = fs, fs._strip_protocol(location)

    def __len__(self) -> int:
        return list_with_retries(self.fs, self.path, lambda: self.fs.info(self.path))["size"]

    def exists(self) -> bool:
        return list_with_retries(self.fs, self.path, lambda: self.fs.exists(self.path))

    def open(self, seekable: bool = True) -> Any:
        return open_file(self.fs, self.path)

    def create(self, overwrite: bool = False) -> Any:
        return _Draft(self)

    def to_input_file(self) -> "StoredFile":
        return self


class _Draft(BytesIO):
    """The bytes of a file that is written when this is closed. Manifests and metadata are small."""

    def __init__(self, file: StoredFile):
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            write_atomic(self._file.fs, self._file.path, self.getvalue())
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None:
            self.close()
        super().close()  # what a writer that failed left is not written
