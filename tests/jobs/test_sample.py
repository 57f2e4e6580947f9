"""The demo's sample corpus."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.decode import decode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "deep" / "images"
    done = subprocess.run([sys.executable, str(ROOT / "jobs" / "sample.py"), str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"84 files in {folder}\n"
    return folder


def test_it_is_photos_and_crops_of_them(sample):
    photos = [path for path in sample.iterdir() if not path.name.startswith("broken_")]
    assert len(photos) == 80
    for path in photos:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert min(image.size) >= 50


def test_its_broken_files_are_broken_each_in_its_way(sample):
    found = {}
    for path in sample.glob("broken_*"):
        with pytest.raises(ImageError) as error:
            decode(path.read_bytes(), 224, 100_000_000)
        found[path.name] = error.value.status
    assert found == {
        "broken_empty.jpg": "not_an_image",
        "broken_cut_off.jpg": "corrupt",
        "broken_page.jpg": "not_an_image",
        "broken_bomb.png": "too_large",
    }


def test_it_is_the_same_each_time(sample, tmp_path):
    subprocess.run([sys.executable, str(ROOT / "jobs" / "sample.py"), str(tmp_path)], check=True, capture_output=True, timeout=120)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: path.read_bytes() for path in sample.iterdir()}


def test_it_asks_for_a_folder():
    done = subprocess.run([sys.executable, str(ROOT / "jobs" / "sample.py")], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "--folder" in done.stdout + done.stderr
