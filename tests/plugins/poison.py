"""Images that kill, hang or fill a decoder that has `tests/poison` on its path.

A file that does so to every release of Pillow is not known; what these do to the process is real.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.plugins.corpus import encoded, picture

FOLDER = Path(__file__).parents[1] / "poison"


class Poison:
    folder = FOLDER

    def image(self, kind: str) -> bytes:
        """A good JPEG, which does that to a decoder on whose path the folder is (see `sitecustomize.py` there)."""
        return encoded(picture(1), "JPEG", comment=f"poison: {kind}".encode())

    @contextmanager
    def on_path(self) -> Iterator[None]:
        """For processes that inherit this one's path."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(FOLDER))
            yield


@pytest.fixture(scope="session")
def poison() -> Poison:
    return Poison()
