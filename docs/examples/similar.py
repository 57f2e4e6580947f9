"""Find images that look alike, by their embeddings, and more pleasant ones among them: "more like this, but brighter".

    python docs/examples/similar.py OUTPUT --uri file:///…/chelsea.jpg

OUTPUT must have been annotated with --keep-embeddings. Without --uri the least pleasant image is used.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
from recommender import committed, nearest


def looks(rows: pl.DataFrame) -> np.ndarray:
    """Return float32 [images, dimensions]: the image tower's embeddings, scaled to length 1, so that their products are cosines."""
    vectors = rows["embedding"].to_numpy().astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--uri", help="the image whose neighbours to find, by its uri in the table")
    parser.add_argument("--count", type=int, default=5)
    args = parser.parse_args()
    rows = committed(args.output)
    if "embedding" not in rows.columns:
        sys.exit(f"{args.output} has no embeddings: annotate with --keep-embeddings")
    rows = rows.filter(pl.col("embedding").is_not_null())
    valence = rows["valence"].struct.field("value").to_numpy()
    found = np.flatnonzero(rows["uri"] == args.uri) if args.uri else [int(np.nanargmin(valence))]
    if len(found) == 0:
        sys.exit(f"{args.output} has no annotated image {args.uri}")
    images = looks(rows)
    asked = found[0]
    closeness = images @ images[asked]
    others = nearest(images, images[asked], len(images))
    others = others[others != asked]
    print(f"like {rows['uri'][int(asked)]}, valence {valence[asked]:.1f}")
    for title, places in (("the nearest", others), ("the nearest that are more pleasant", others[valence[others] > valence[asked] + 1])):
        print(f"\n{title}")
        for place in places[: args.count]:
            print(f"  {closeness[place]:.3f}  valence {valence[place]:.1f}  {rows['uri'][int(place)]}")


if __name__ == "__main__":
    main()
