"""Images that crash a decoder, hang it or fill its memory, if `tests/poison` is on its path.

No file is known that does this to every release of Pillow; the effect on the process is real.
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
        """Return a valid JPEG that has the effect `kind` on a decoder with the folder on its path (see `sitecustomize.py` there)."""
        return encoded(picture(1), "JPEG", comment=f"poison: {kind}".encode())

    @contextmanager
    def on_path(self) -> Iterator[None]:
        """Put the folder on this process's path, which child processes inherit."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(FOLDER))
            yield


@pytest.fixture(scope="session")
def poison() -> Poison:
    return Poison()
