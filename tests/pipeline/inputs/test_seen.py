"""Duplicates among the images of a listing."""

import numpy as np

from pipeline.inputs.item import Item
from pipeline.inputs.manifest import image_id
from pipeline.inputs.seen import Seen


def test_what_is_remembered_of_an_image_is_sixteen_bytes():
    seen = Seen()
    for batch in range(40):
        items = [Item(f"s3://bucket/{batch}/{i}.jpg") for i in range(1000)]
        ids = np.array([image_id(item) for item in items], np.int64)
        assert seen.add(ids, items).all()
        assert not seen.add(ids[:10], items[:10]).any()
    assert sum(ids.nbytes + uris.nbytes for ids, uris in seen.arrays) == 16 * 40_000
    assert len(seen.arrays) < 8
