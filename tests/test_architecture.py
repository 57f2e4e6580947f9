"""docs/architecture.md and its picture describe the code as it is, and the rooms keep to their rules."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "ugrie")
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_FILES = 14  # in a room


def modules() -> list[Path]:
    """Every module of the packages that holds code, relative to the repository's root."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in paths if path.name != "__init__.py" or path == ROOT / "ugrie" / "__init__.py")


def listed() -> list[str]:
    """The files in the page's tables, each with its folder, in the page's order."""
    sections = re.findall(r"^### `([\w/]+/)`: [^\n]*\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [folder + name for folder, text in sections for name in re.findall(r"^\| `(\w+\.py)` \| \S", text, re.MULTILINE)]


def rooms(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir() and any(path.glob("*.py"))}


def test_the_picture_is_drawn_from_the_imports_as_they_are():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "architecture.svg").read_text() == script.picture(), "run `make docs`"


def test_the_page_lists_every_module_once_and_no_other():
    """After adding, renaming or removing a file, edit its line in docs/architecture.md."""
    paths, named = {str(path) for path in modules()}, listed()
    assert (paths - set(named), set(named) - paths) == (set(), set()), "modules without a line, and lines without a module"
    assert len(named) == len(set(named))


def test_the_page_lists_files_in_alphabetical_order_within_a_room():
    by_room: dict[str, list[str]] = {}
    for path in listed():
        by_room.setdefault(str(Path(path).parent), []).append(path)
    assert all(paths == sorted(paths) for paths in by_room.values())


def test_every_path_that_the_page_names_exists():
    named = set(re.findall(r"`((?:pipeline|ugrie|jobs|benchmarks|tests|docs)/[\w/.-]+)`", PAGE))
    assert len(named) > 40
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_name_that_the_page_points_to_is_in_its_file():
    """Such as `graph` in "`pipeline/run/driver.py` (`graph`)" and in "`graph` in `pipeline/run/driver.py`"."""
    before = [(name, path) for name, path in re.findall(r"`(\w+)` in `([\w/]+\.py)`", PAGE)]
    after = [(name, path) for path, name in re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", PAGE)]
    assert len(before) > 5
    for name, path in before + after:
        assert re.search(rf"^(?:def |class )?{name}\b", (ROOT / path).read_text(), re.MULTILINE), (name, path)


def test_no_room_has_more_files_than_are_seen_at_a_glance():
    for package in PACKAGES:
        for room in rooms(ROOT / package):
            count = sum(path.name != "__init__.py" for path in (ROOT / package / room).glob("*.py"))
            assert count <= MOST_FILES, f"{package}/{room}"


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_are_in_the_rooms_of_what_they_test(package):
    assert rooms(ROOT / "tests" / package) <= rooms(ROOT / package)
    at_the_top = {path.stem for path in (ROOT / package).glob("*.py")}
    assert {path.stem.removeprefix("test_") for path in (ROOT / "tests" / package).glob("test_*.py")} <= at_the_top
