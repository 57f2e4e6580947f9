"""Compute features for a recommender: an emotion vector for each image and each user, nearest images, and a list re-ranked by mood.

    python docs/examples/recommender.py OUTPUT --interactions interactions.parquet

Interactions are a table with the columns user, uri, weight. Without --interactions, they are made up.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl


def committed(output: Path) -> pl.DataFrame:
    """Return the annotated rows of committed runs, the newest of each image."""
    records = [json.loads(record.read_text()) for record in sorted((output / "runs").glob("*.json"))]
    lists = [json.loads((output / path).read_text()) for record in records for path in record.get("file_lists", ())]
    files = [output / file for each in records + lists for file in each["files"]]
    rows = pl.concat([pl.read_parquet(file) for file in files], how="diagonal")
    return rows.filter(pl.col("status") == "ok").sort("annotated_at").unique("image_id", keep="last").sort("uri")


def vectors(rows: pl.DataFrame) -> np.ndarray:
    """Return float32 [images, labels]: the square roots of the probabilities of the schemes that all images have, side by side.

    The product of two vectors is then the mean similarity of their distributions (Bhattacharyya coefficient); each vector has length 1.
    """
    schemes = [name for name, kind in rows.schema.items() if isinstance(kind, pl.Struct) and rows[name].null_count() == 0]
    columns = [np.sqrt(np.array(rows[name].struct.field("probs").to_list(), np.float32)) for name in schemes]
    return np.concatenate(columns, axis=1) / np.sqrt(len(schemes))


def of_users(rows: pl.DataFrame, images: np.ndarray, interactions: pl.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the users, and each user's vector: the weighted mean of the images they interacted with, scaled to length 1."""
    places = rows.select("uri").with_row_index("place")
    seen = interactions.join(places, on="uri").sort("user")
    users, found = [], []
    for (user,), part in seen.group_by("user", maintain_order=True):
        mean = part["weight"].to_numpy() @ images[part["place"].to_numpy()]
        users.append(user)
        found.append(mean / np.linalg.norm(mean))
    return users, np.stack(found)


def nearest(images: np.ndarray, vector: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the most similar images, the nearest first."""
    return np.argsort(-(images @ vector), kind="stable")[:count]


def reranked(scores: np.ndarray, valence: np.ndarray, wanted: float, weight: float) -> np.ndarray:
    """Return indices ordered by a recommender's own scores, each reduced by the distance of the image's valence from the wanted mood."""
    return np.argsort(-(scores - weight * np.abs(valence - wanted)), kind="stable")


def made_up(rows: pl.DataFrame) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    uris = rows["uri"].to_list()
    return pl.DataFrame({"user": draw.choice(["ada", "ben", "cem"], 30), "uri": draw.choice(uris, 30), "weight": draw.uniform(0.5, 2, 30)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--interactions", help="a Parquet file with the columns user, uri, weight")
    args = parser.parse_args()
    rows = committed(args.output)
    images = vectors(rows)
    if args.interactions:
        interactions = pl.read_parquet(args.interactions)
    else:
        print("interactions are made up")
        interactions = made_up(rows)
    users, profiles = of_users(rows, images, interactions)
    valence = rows["valence"].struct.field("value").to_numpy()
    for user, profile in zip(users, profiles, strict=True):
        print(f"\n{user}'s images would be")
        for place in nearest(images, profile, 3):
            print(f"  {images[place] @ profile:.3f}  {rows['uri'][int(place)]}")
        print("and in a brighter mood")
        for place in reranked(images @ profile, valence, float(np.nanquantile(valence, 0.8)), 0.1)[:3]:
            print(f"  valence {valence[place]:.1f}  {rows['uri'][int(place)]}")


if __name__ == "__main__":
    main()
