"""The schemas of the tables that operators exchange and of the table that is written. Each operator declares its input and output."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme

# Of the table and of run records. Version 1 had other image IDs: both may be read, and a run writes into an output of its version only.
SCHEMA_VERSION = 2
ROW_ID = "row_id"  # of tables with columns kept from the input: an image may have several rows
RESERVED = ("dt", "embedding", "row", ROW_ID, "zero_shot")  # columns that only some tables have, the partition, and the report's own

# The status, from the loader to the commit, of a duplicate: its row is copied from the row of the same bytes in the file `owner`,
# which is another block's, or a file of the table that an earlier run wrote.
REPOST = "repost"
# The status, until the commit leaves out the row, of an image that is on a list of `--suppress`.
SUPPRESSED = "suppressed"
INTERNAL = [pa.field("block", pa.int32(), nullable=False), pa.field("owner", pa.string())]
IMAGE = [  # the columns that fetch and decode produce, before `crop`
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("content_hash", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("bytes", pa.int64()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
]
STAGES = ("fetch", "decode", "annotate")
TIMES = [pa.field(f"{stage}_seconds", pa.float32(), nullable=False) for stage in STAGES]


@dataclass(frozen=True)
class Tables:
    """The schemas of a run, which follow from the model's schemes and the sizes of its crop and embedding."""

    schemes: tuple[Scheme, ...]
    crop_size: int
    embedding_dim: int | None  # None: embeddings are not kept
    model: str
    tower: str  # the digest of the image tower that makes the embeddings: `ugrie.model.checkpoint.tower_digest`
    zero_shot: Mapping[str, ZeroShot] = field(default_factory=dict)  # by name, the schemes that the model was not trained for
    kept: pa.Schema | None = None  # the columns kept from the input; None if there are none (`pipeline.table.kept_columns`)

    @property
    def answered(self) -> tuple[str | ZeroShot, ...]:
        """The schemes as `UGRIE.predict` takes them."""
        return tuple(self.zero_shot.get(scheme.name, scheme.name) for scheme in self.schemes)

    @property
    def zero_shot_digests(self) -> dict[str, str]:
        return {name: answer.digest for name, answer in self.zero_shot.items()}

    @property
    def crop_bytes(self) -> int:
        return 3 * self.crop_size**2

    @property
    def loaded(self) -> pa.Schema:
        """The loader's output: the image's columns, its crop (zeros where status is not ok) and the seconds spent on it."""
        return pa.schema([*INTERNAL, *IMAGE, pa.field("crop", pa.binary(self.crop_bytes), nullable=False), *TIMES[:2]])

    @property
    def annotated(self) -> pa.Schema:
        """The annotator's output: `written`, with the row's block and the seconds spent on it."""
        return pa.schema([INTERNAL[0], *self.written, *TIMES])

    @property
    def written(self) -> pa.Schema:
        """A block's file: `annotation`, with the `owner` of each duplicate."""
        return pa.schema([INTERNAL[1], *self.annotation], self.annotation.metadata)

    @property
    def of_content(self) -> list[str]:
        """The columns that are equal for equal bytes."""
        own = {"image_id", "uri", "content_hash", "bytes", "model", "run_id", "annotated_at"}
        return [name for name in self.annotation.names if name not in own]

    @property
    def repeating(self) -> list[str]:
        """The columns with repeating values, by their Parquet paths: dictionary encoding shrinks them, and enlarges all others."""
        plain = ["owner", "width", "height", "status", "error", "sentence", "zero_shot.list.element", "model", "run_id", "annotated_at"]
        return plain + [f"{scheme.name}.label" for scheme in self.schemes if scheme.kind == "categorical"]

    @property
    def output(self) -> pa.Schema:
        """The table as written: `annotation`, and after the image's columns the `row_id` and the columns kept from the input."""
        kept = [] if self.kept is None else [pa.field(ROW_ID, pa.int64()), *self.kept]
        return pa.schema([*IMAGE, *kept, *list(self.annotation)[len(IMAGE) :]], self.annotation.metadata)

    @property
    def annotation(self) -> pa.Schema:
        """The table without what is kept from the input.

        Its metadata under `ugrie` states each scheme's labels in the order of `probs`, with their polarities. The column `zero_shot` and
        that key of the metadata are left out if there are no such schemes.
        """
        fields = [*IMAGE, pa.field("sentence", pa.string())]
        fields += [pa.field(scheme.name, scheme_type(scheme)) for scheme in self.schemes]
        if self.zero_shot:
            fields.append(pa.field("zero_shot", pa.list_(pa.string())))
        if self.embedding_dim is not None:
            fields.append(pa.field("embedding", pa.list_(pa.float16(), self.embedding_dim)))
        fields += [
            pa.field("model", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("annotated_at", pa.timestamp("us", "UTC"), nullable=False),
        ]
        schemes = {
            s.name: {"kind": s.kind, "labels": s.label_names, "polarities": [label.polarity for label in s.labels]}
            | ({"values": s.values, "range": s.range} if s.kind == "ordinal" else {})
            | ({"zero_shot": True} if s.name in self.zero_shot else {})
            for s in self.schemes
        }
        about = {"schema_version": SCHEMA_VERSION, "model": self.model, "tower": self.tower, "schemes": schemes}
        return pa.schema(fields, metadata={"ugrie": json.dumps(about)})


def scheme_type(scheme: Scheme) -> pa.DataType:
    """Return a scheme's struct: {label, score, probs} if it is categorical, {value, probs} if ordinal."""
    probs = pa.field("probs", pa.list_(pa.float32()))
    if scheme.kind == "ordinal":
        return pa.struct([pa.field("value", pa.float32()), probs])
    return pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32()), probs])


def expect(table: pa.Table, schema: pa.Schema, operator: str) -> pa.Table:
    """Return the table if its columns are those that the operator declares. Raises TypeError, which names the first that differs."""
    for ours, theirs in zip(schema, table.schema, strict=False):
        if ours.name != theirs.name or ours.type != theirs.type:
            raise TypeError(f"{operator}: column {ours.name} {ours.type} was declared, {theirs.name} {theirs.type} received")
    if len(schema) != len(table.schema):
        raise TypeError(f"{operator}: columns {schema.names} were declared, {table.schema.names} received")
    return table


@dataclass(frozen=True)
class SchemeMetadata:
    """A scheme as a file's metadata describes it. `polarities` are None in files that don't state them."""

    kind: str
    labels: list[str]
    polarities: list[str | None] | None = None
    values: list[float] | None = None
    range: list[float] | None = None
    zero_shot: bool = False

    @property
    def label_names(self) -> list[str]:
        return self.labels


def file_schemes(metadata: Mapping[bytes, bytes]) -> dict[str, SchemeMetadata]:
    """Return the schemes that a file of the table describes in its metadata. Raises KeyError where it describes none."""
    return {name: SchemeMetadata(**fields) for name, fields in json.loads(metadata[b"ugrie"])["schemes"].items()}
