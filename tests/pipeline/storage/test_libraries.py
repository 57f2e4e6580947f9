"""File systems and errors are told by their classes, without importing these."""

import sys
from types import ModuleType

import fsspec

from pipeline.storage.libraries import is_http, is_s3, loaded


def test_a_class_is_one_once_its_module_is_imported(monkeypatch):
    name = "a_library_of_no_use"
    assert loaded(f"{name}.Error", "builtins.OSError") == (OSError,)
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # as while another thread imports it
    assert loaded(f"{name}.Error", "builtins.OSError") == (OSError,)
    module.Error = type("Error", (Exception,), {})
    assert loaded(f"{name}.Error", "builtins.OSError") == (module.Error, OSError)


def test_file_systems_are_told_apart():
    memory, web = fsspec.filesystem("memory"), fsspec.filesystem("https")
    assert [(is_s3(fs), is_http(fs)) for fs in (memory, web)] == [(False, False), (False, True)]
    assert is_s3(fsspec.filesystem("s3", key="k", secret="s", endpoint_url="http://127.0.0.1:1"))
