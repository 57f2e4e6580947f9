"""The process in which inputs are tried at UGRIE's front doors. `conftest.Doors` starts it, and outlives what this one doesn't.

It reads trials, and answers each with how it ended: `valid`, the error that was raised where that is one of the door's own, or
`problem` with what is wrong. Decoders and table readers are native code: a process of their own is what makes a crash, a hang
or gigabytes of memory a test that fails.
"""

import ast
import faulthandler
import logging
import os
import pickle
import resource
import site
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST_MESSAGE = 2000  # characters
MEMORY = 400 * 2**20  # bytes that one input may take, over what the process has taken before
ADDRESS_SPACE = 16 * 2**30  # bytes of the whole process: it shares its machine
MAX_PIXELS = 1_000_000
MAX_ITEMS = 100_000  # far more than any input here has

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CALLS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime")
LIBRARIES = tuple(str(Path(folder).resolve()) for folder in (ROOT, sys.prefix, sys.base_prefix, *site.getsitepackages(), "/usr"))


# --- the doors: each takes what is given in a folder of files, and raises one of its errors or checks what came of it -------


def image(data: bytes) -> None:
    from pipeline.images.decode import decode

    decoded = decode(data, 32, MAX_PIXELS)
    assert (decoded.crop.shape, decoded.crop.dtype) == ((32, 32, 3), "uint8")
    assert decoded.width >= 1
    assert decoded.height >= 1
    assert decoded.width * decoded.height <= MAX_PIXELS


def source(given: tuple[str, str, tuple[str, ...]]) -> None:
    """An input, the column of a table, and columns to keep."""
    from pipeline.inputs.manifest import write_manifest
    from pipeline.sources.source import list_items
    from pipeline.table.kept_columns import Keep
    from pipeline.table.output_folder import OutputFolder

    name, column, kept = given
    found = list(islice(list_items(os.path.join(os.getcwd(), name), column, {}, keep=Keep(kept)), MAX_ITEMS))
    assert 0 < len(found) < MAX_ITEMS
    for item in found:
        assert item.size is None or item.size >= 0, item
        assert (item.container is None) == (item.position is None), item
        assert (item.kept is not None) == bool(kept), item
        if item.container is not None and item.position is not None:
            assert item.position >= 0, item
            assert item.position + (item.size or 0) <= os.path.getsize(item.container) or item.size is None, item
    output = OutputFolder("memory://output", {})
    try:
        assert 0 < write_manifest(output, "manifest", found).rows <= len(found)
    finally:
        output.fs.store.clear()


def written(given: tuple[str, list[str]]) -> None:
    """A table of text in the folder, and the values of its column `uri`."""
    from pipeline.inputs.kinds import kind_of
    from pipeline.sources.text_table import text_values

    name, values = given
    with open(name, "rb") as file:
        assert list(text_values(file, kind_of(name), "uri", name)) == values


def scheme(path: str) -> None:
    import numpy as np

    from ugrie.schemes.scheme import Scheme, load_scheme
    from ugrie.schemes.template import Template

    own = load_scheme(path)
    template = Template((own,))
    for label in own.label_names:
        assert template.parse(template.render({own.name: label})) == {own.name: label}
    assert np.isfinite(own.values).all()
    if own.wheel is not None:
        steps = own.wheel_distance
        assert (steps == steps.T).all()
        assert (np.sort(steps) == np.sort(steps[0])).all()
    for name in own.crosswalks:
        target = name if (Path(path).parent / f"{name}.toml").is_file() is False else str(Path(path).with_name(f"{name}.toml"))
        assert set(own.crosswalk(load_scheme(target)).sum(1).round(4).tolist()) <= {0.0, 1.0}
    assert Scheme.model_validate_json(own.model_dump_json()) == own


def sentence(given: tuple[list[dict[str, Any]], str, list[int]]) -> None:
    """Schemes, a text, and the label of each scheme by its index."""
    from pydantic import ValidationError

    from ugrie.schemes.scheme import Scheme
    from ugrie.schemes.template import Template, TemplateError

    documents, text, choices = given
    try:
        schemes = tuple(Scheme.model_validate(document) for document in documents)
    except ValidationError:
        raise TemplateError("these are no schemes") from None
    template = Template(schemes)
    labels = {own.name: own.label_names[i % len(own.labels)] for own, i in zip(schemes, choices, strict=False)}
    assert _read_back(template, template.render(labels)) == labels
    read = template.parse(text)
    if read:
        part = Template(tuple(own for own in schemes if own.name in read))
        assert _read_back(template, part.render(read)) == read


def _read_back(template: Any, written: str) -> dict[str, str]:
    try:
        return template.parse(written)
    except ValueError as error:  # it may refuse any text but its own
        raise AssertionError(f"'{written}' is not read back: {error}") from error


def recipe(path: str) -> None:
    from ugrie.training.recipe import Recipe, read_recipe

    read = read_recipe(path)
    assert read.schemes
    assert read.data
    assert Recipe.model_validate(read.model_dump()) == read


def checkpoint(name: str) -> None:
    from ugrie.model.checkpoint import Config, find, read_config

    config = read_config(find(name))
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert config.template().literals
    assert config.tower.crop_size > 0
    assert all(temperature > 0 for temperature in config.temperatures.values())


def job(tokens: list[str]) -> None:
    """The arguments of `ugrie annotate`, whose run is not begun."""
    from pipeline.config import AnnotateConfig
    from pipeline.errors import UserError

    begun: list[AnnotateConfig] = []
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _job(begun.append)(tokens)
    if code:
        assert (code, begun) == (2, [])
        lines = err.getvalue().splitlines()
        assert lines
        assert all(line.startswith("annotate: ") for line in lines), lines
        raise UserError(max(lines, key=len))
    if not begun:
        assert "Usage" in out.getvalue()
        return
    (config,) = begun
    assert AnnotateConfig(**config.model_dump()) == config
    assert "storage_options" not in config.public()


def _job(begin: Callable[[Any], None]) -> Callable[[list[str]], int]:
    """`ugrie annotate`, with `begin` in place of what it runs."""
    for name, content in (("run.driver", {"annotate": begin}), ("run.summary", {"summary": lambda record, output: "begun"})):
        module = sys.modules[f"pipeline.{name}"] = ModuleType(name)
        vars(module).update(content)
    from pipeline.commands.main import run

    return lambda tokens: run(["annotate", *tokens])


DOORS: dict[Callable[[Any], None], tuple[str, ...]] = {
    image: ("ImageError",),
    source: ("UserError",),
    written: ("UserError",),
    scheme: ("SchemeError",),
    sentence: ("TemplateError",),
    recipe: ("RecipeError",),
    checkpoint: ("CheckpointError",),
    job: ("UserError",),
}


# --- the trial of one input -------------------------------------------------------------------------------------------------


class Watch:
    """Sees what an input has no business to cause: writing, reading outside its folder, starting programs, calling out.

    It sees what goes through Python, as all of UGRIE's own files do.
    """

    def __init__(self) -> None:
        self.folder: str | None = None  # while an input is tried
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is not None and (event in CALLS or event in CHANGES or (event == "open" and not self._harmless(*arguments))):
            self.seen.append(f"{event} {arguments!r:.300}")
            raise PermissionError(f"{event} has no place here")

    def _harmless(self, path: Any, mode: str | None, flags: int) -> bool:
        if isinstance(path, int):
            return True
        place = os.path.realpath(os.fsdecode(path))
        return not flags & WRITES and (os.path.isdir(place) or place == os.devnull or place.startswith((f"{self.folder}/", *LIBRARIES)))

    @contextmanager
    def over(self, folder: str) -> Iterator[None]:
        self.seen, self.folder = [], folder
        try:
            yield
        finally:
            self.folder = None


def attempt(door: Callable[[Any], None], given: Any, watch: Watch) -> tuple[str, str]:
    """Return the door's answer (valid, the name of its error, or problem) and the message."""
    before = _peak()
    try:
        with watch.over(os.getcwd()):
            door(given)
        outcome, message = "valid", ""
    except Exception as error:
        outcome, message = type(error).__name__, str(error)
        if outcome not in DOORS[door]:
            return "problem", "".join(traceback.format_exception(error))
    if watch.seen:
        return "problem", f"it must not {'; '.join(watch.seen)}"
    if _peak() - before > MEMORY:
        return "problem", f"it took {(_peak() - before) >> 20} MiB of memory and more ({outcome}: {message[:500]})"
    if outcome != "valid" and not (message and len(message) <= LONGEST_MESSAGE and _one_line(message)):
        return "problem", f"{outcome} with a message of {len(message)} characters that is none, not one line or too long: {message[:500]!r}"
    return outcome, message


def _one_line(text: str) -> bool:
    """Return whether a terminal and a table show it as one line of text."""
    return len(text.splitlines()) == 1 and not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _peak() -> int:
    """Bytes of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Trials come as (door, given, files by name, seconds); the folder of the files is the working folder."""
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    trials, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    watch = Watch()
    with tempfile.TemporaryDirectory(prefix="ugrie-fuzz-") as folder:
        while True:
            try:
                name, given, files, seconds = pickle.load(trials)
            except EOFError:
                return
            faulthandler.dump_traceback_later(seconds)
            answer = among(files, folder, name, given, watch)
            faulthandler.cancel_dump_traceback_later()
            pickle.dump(answer, answers)
            answers.flush()


def among(files: Mapping[bytes | str, bytes], folder: str, name: str, given: Any, watch: Watch) -> tuple[str, str]:
    """Return a door's answer in a temporary folder of these files."""
    with tempfile.TemporaryDirectory(dir=os.path.realpath(folder)) as place:
        os.chdir(place)
        for path, content in files.items():
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        answer = attempt({door.__name__: door for door in DOORS}[name], given, watch)
        os.chdir(folder)
    return answer


if __name__ == "__main__":
    faulthandler.enable()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(ROOT))
    if len(sys.argv) > 1:
        name, given, files = ast.literal_eval(Path(sys.argv[1]).read_text())
        with tempfile.TemporaryDirectory() as folder:
            print(*among(files, folder, name, given, Watch()), sep=": ")
    else:
        main()
