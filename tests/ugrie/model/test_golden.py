"""Golden numbers: what the bundled checkpoint says of fixed embeddings. They change with its weights, and with nothing else.

python tests/ugrie/model/test_golden.py    # writes them anew, after the checkpoint was trained again
"""

import json
from pathlib import Path

import numpy as np
import pytest

from ugrie import UGRIE
from ugrie.model.checkpoint import digest, find

FILE = Path(__file__).parent / "golden" / "ugrie-tiny.json"


def scores() -> dict:
    """Sentences and probabilities for eight embeddings, made of integers alone so that every machine makes the same."""
    model = UGRIE.from_pretrained("ugrie-tiny")
    dim = model.config.tower.embedding_dim
    embeddings = ((np.arange(8 * dim).reshape(8, dim) * 2654435761 % 4093) / 4093).astype(np.float32)
    annotations = model.annotate_embeddings(embeddings)
    probs = [{name: [round(p, 6) for p in reading.probs.values()] for name, reading in a.readings.items()} for a in annotations]
    return {"digest": digest(find("ugrie-tiny")), "sentences": [a.sentence for a in annotations], "probs": probs}


def test_the_bundled_checkpoint_gives_its_golden_scores():
    golden, given = json.loads(FILE.read_text()), scores()
    assert golden["digest"] == given["digest"], f"another checkpoint than the golden one: run python {Path(__file__).name}"
    assert golden["sentences"] == given["sentences"]
    for wanted, probs in zip(golden["probs"], given["probs"], strict=True):
        for name in wanted:
            assert probs[name] == pytest.approx(wanted[name], abs=1e-4)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(scores(), indent=1) + "\n")
