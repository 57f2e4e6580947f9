"""UGRIE: the emotions an image evokes, in several emotion models at once.

from ugrie import UGRIE

model = UGRIE.from_pretrained("ugrie-tiny")
for annotation in model.annotate(["beach.jpg", "storm.jpg"]):
    print(annotation.sentence, annotation["valence"].value)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ugrie.model.model import UGRIE

__version__ = "0.1.0"
__all__ = ["UGRIE", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the model at first use: workers that only decode images need no torch."""
    if name == "UGRIE":
        from ugrie.model.model import UGRIE

        return UGRIE
    raise AttributeError(f"module 'ugrie' has no attribute '{name}'")
