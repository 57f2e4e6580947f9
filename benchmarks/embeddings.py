"""Measures where embeddings go in a table whose format has no float16: size on disk, and the time to read the other columns.

    python benchmarks/embeddings.py      # about two minutes

Layouts: float16 in the table (as without a format), float32 in the table, plain and with its bytes split (BYTE_STREAM_SPLIT), and
float32 in a table of its own by content hash, also split, with each hash once. Rows are those of a run with four schemes; a tenth of
them are duplicates. Embeddings are unit vectors of normal numbers, rounded to float16. All files are in the page cache.
"""

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import medians, report

from pipeline.stages.merge import GROUP_ROWS
from pipeline.table.schema import Tables
from ugrie.schemes.scheme import load_scheme

SCHEMES = ("polarity3", "ekman6", "mikels8", "valence")
SPLIT = ["embedding.list.element"]
DUPLICATES = 0.1  # of the rows


def rows(count: int, dim: int) -> tuple[pa.Table, list[str]]:
    """Return the rows of a run as the table has them without a format, and the columns that are encoded by a dictionary."""
    rng = np.random.default_rng(0)
    tables = Tables(tuple(map(load_scheme, SCHEMES)), crop_size=224, embedding_dim=dim, tower="t", model="ugrie-l14@0123456789ab")
    source = np.where(rng.random(count) < DUPLICATES, rng.integers(0, count, count), np.arange(count))
    vectors = rng.standard_normal((count, dim), np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)[source]
    columns = {
        "image_id": pa.array(rng.integers(-(2**63), 2**63, count)),
        "uri": [f"s3://bucket/images/{i // 1000:05d}/{rng.integers(2**40):010x}.jpg" for i in range(count)],
        "content_hash": [hashlib.sha256(b"%d" % i).hexdigest() for i in source],
        "width": rng.integers(300, 4000, count).astype(np.int32),
        "height": rng.integers(300, 4000, count).astype(np.int32),
        "bytes": rng.integers(10_000, 2_000_000, count),
        "status": pa.repeat("ok", count),
        "error": pa.nulls(count, pa.string()),
        "model": pa.repeat(tables.model, count),
        "run_id": pa.repeat("20261123T010000-0123ab", count),
        "annotated_at": pa.array(1_795_000_000_000_000 + np.arange(count), pa.timestamp("us", "UTC")),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
    }
    labels = []
    for scheme in tables.schemes:
        names = scheme.label_names
        probs = rng.dirichlet(np.full(len(names), 0.4), count).astype(np.float32)
        offsets = np.arange(0, probs.size + 1, len(names), dtype=np.int32)
        fields = {"probs": pa.ListArray.from_arrays(pa.array(offsets), pa.array(probs.ravel()))}
        if scheme.kind == "categorical":
            best = probs.argmax(1)
            fields = {"label": pa.array(np.array(names)[best]), "score": pa.array(probs.max(1))} | fields
            labels.append([names[i] for i in best])
        else:
            fields = {"value": pa.array((probs @ np.asarray(scheme.values)).astype(np.float32))} | fields
        columns[scheme.name] = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    columns["sentence"] = [f"The mood is {a}; it evokes {b}, {c}." for a, b, c in zip(*labels, strict=True)]
    return pa.table([columns[name] for name in tables.annotation.names], tables.annotation), tables.repeating


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the result, and write no file")
    args = parser.parse_args()
    table, repeating = rows(args.rows, args.dim)
    wide = table.set_column(
        table.column_names.index("embedding"), "embedding", table["embedding"].cast(pa.list_(pa.field("element", pa.float32())))
    )
    others = table.drop_columns("embedding")
    first = pc.index_in(pc.unique(wide["content_hash"]), wide["content_hash"].combine_chunks())
    side = wide.select(["content_hash", "embedding"]).take(first)
    layouts = {
        "float16": [(table, None)],
        "float32": [(wide, None)],
        "float32 split": [(wide, SPLIT)],
        "float32 split, a table of its own": [(others, None), (side, SPLIT)],
    }
    with tempfile.TemporaryDirectory() as temporary:
        files: dict[str, list[str]] = {"none": [f"{temporary}/none.parquet"]}
        pq.write_table(others, files["none"][0], row_group_size=GROUP_ROWS, compression="zstd", use_dictionary=repeating)
        for number, (name, parts) in enumerate(layouts.items()):
            files[name] = [f"{temporary}/{number}-{part}.parquet" for part in range(len(parts))]
            for file, (part, split) in zip(files[name], parts, strict=True):
                encodings = {"use_dictionary": [c for c in repeating if c.partition(".")[0] in part.column_names]}
                pq.write_table(part, file, row_group_size=GROUP_ROWS, compression="zstd", use_byte_stream_split=split or False, **encodings)
        sizes = {name: sum(Path(file).stat().st_size for file in found) for name, found in files.items()}
        few = ["ekman6", "valence", "status"]

        def joined(found: list[str]) -> pa.Table:
            """Return each row's embedding beside its label."""
            if len(found) == 1:
                return pq.read_table(found[0], columns=["ekman6", "embedding"])
            left, right = pq.read_table(found[0], columns=["ekman6", "content_hash"]), pq.read_table(found[1])
            return left.append_column("embedding", right["embedding"].take(pc.index_in(left["content_hash"], right["content_hash"])))

        scan = medians({name: lambda found=found: pq.read_table(found[0], columns=few) for name, found in files.items()}, args.repeats)
        whole = medians(
            {name: lambda found=found: pq.read_table(found[0], columns=others.column_names) for name, found in files.items()}, args.repeats
        )
        with_vectors = medians({name: lambda found=found: joined(found) for name, found in list(files.items())[1:]}, args.repeats)
    results = {
        "rows": args.rows,
        "dim": args.dim,
        "duplicates": DUPLICATES,
        "layouts": {
            name: {
                "bytes a row": round(sizes[name] / args.rows, 1),
                "bytes a row of embeddings": round((sizes[name] - sizes["none"]) / args.rows, 1),
                "seconds, three other columns": round(scan[name], 4),
                "seconds, all other columns": round(whole[name], 4),
                **({"seconds, labels and embeddings": round(with_vectors[name], 4)} if name != "none" else {}),
            }
            for name in files
        },
    }
    report("embeddings", results, args.json)


if __name__ == "__main__":
    main()
