"""Read the table as a pandas DataFrame: a row for each image, flat columns of small types, labels as categories; probabilities as arrays.

    python docs/examples/pandas_table.py OUTPUT

OUTPUT may be in an object store.
"""

import argparse
import json

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

# Types that hold nulls: an image that was not read has no size.
NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float32(): pd.Float32Dtype(),
    pa.string(): pd.StringDtype("pyarrow"),
}


def committed(output: str) -> tuple[pa.Table, dict[str, dict]]:
    """Return the rows of committed runs, the newest of each image; and each scheme's kind, labels and range, from the files' metadata."""
    fs, root = fsspec.url_to_fs(output)
    records = [json.loads(fs.cat_file(path)) for path in sorted(fs.glob(f"{root}/runs/*.json"))]
    lists = [json.loads(fs.cat_file(f"{root}/{path}")) for record in records for path in record.get("file_lists", ())]
    files = [f"{root}/{file}" for each in records + lists for file in each["files"]]
    tables = [pq.read_table(file, filesystem=fs, partitioning=None) for file in files]
    schemes = {name: about for table in tables for name, about in json.loads(table.schema.metadata[b"ugrie"])["schemes"].items()}
    rows = pa.concat_tables(tables, promote_options="default")
    when = rows.select(["image_id", "annotated_at"]).to_pandas().sort_values("annotated_at", kind="stable")
    return rows.take(when.drop_duplicates("image_id", keep="last").index.sort_values().to_numpy()), schemes


def frame(rows: pa.Table, schemes: dict[str, dict]) -> pd.DataFrame:
    """Return flat columns: a categorical scheme's label (a category, in the scheme's order) and `…_score`, an ordinal scheme's value."""
    plain = [name for name in rows.column_names if name not in schemes and name != "embedding"]
    images = rows.select(plain).to_pandas(types_mapper=NULLABLE.get)
    images = images.astype({"image_id": "int64", "status": "category", "model": "category", "run_id": "category"})
    for name, about in schemes.items():
        flat = rows[name].combine_chunks().flatten()  # unlike field(), flatten() keeps children of a null null
        parts = {field.name: part.to_pandas(types_mapper=NULLABLE.get) for field, part in zip(rows[name].type, flat, strict=True)}
        if about["kind"] == "categorical":
            images[name] = pd.Categorical(parts["label"], about["labels"])
            images[f"{name}_score"] = parts["score"]
        else:
            images[name] = parts["value"]
    return images


def probabilities(rows: pa.Table, scheme: str, labels: int) -> np.ndarray:
    """Return float32 [rows, labels], in the order of the scheme's labels; NaN for a row without probabilities."""
    found = np.full((len(rows), labels), np.nan, np.float32)
    lists = rows[scheme].combine_chunks().flatten()[-1]
    found[lists.is_valid().to_numpy(zero_copy_only=False)] = lists.flatten().to_numpy().reshape(-1, labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    args = parser.parse_args()
    rows, schemes = committed(args.output)
    images = frame(rows, schemes)
    print(images.dtypes.to_string())
    print(f"\n{images['status'].value_counts().to_string()}\n")
    values = [name for name, about in schemes.items() if about["kind"] == "ordinal"]
    for name, about in schemes.items():
        if about["kind"] == "categorical":
            print(images.groupby(name, observed=True)[[f"{name}_score", *values]].mean().round(2).to_string(), end="\n\n")
            probs = probabilities(rows, name, len(about["labels"]))
            entropy = -(probs * np.log2(np.maximum(probs, 1e-9))).sum(axis=1)
            least_sure = images.assign(bits=entropy.round(3)).nlargest(3, "bits")
            print(f"least sure of {name}:\n{least_sure[['bits', name, 'uri']].to_string(index=False)}\n")


if __name__ == "__main__":
    main()
