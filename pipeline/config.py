"""The annotation job's whole configuration, one typed model: flags, the configuration file and the docs come from it."""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.logs import LogFormat
from pipeline.storage.uris import without_secrets


def _comma_separated(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    return None if words is None else tuple(part.strip() for word in words for part in str(word).split(",") if part.strip())


Precision = Literal["auto", "fp32", "bf16", "int8"]
TableFormat = Literal["parquet", "delta"]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]


class AnnotateConfig(BaseModel):
    """What is annotated, by which model, where it goes, and the limits that hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(
        min_length=1,
        description="Images: a folder, prefix or glob; a table of URIs (.parquet, .csv, .jsonl); a .parquet with image bytes; .tar shards",
    )
    output: str = Field(min_length=1, description="Folder or prefix that receives annotations/ and runs/")
    model: str = Field("ugrie-tiny", description="A bundled checkpoint's name, a folder, or the URL of one")
    tower_weights: str | None = Field(None, description="File or URL of CLIP weights, for a model that does not bundle its own")
    schemes: Names | None = Field(None, description="Emotion models to annotate, comma-separated; all that the model knows by default")
    from_embeddings: bool = Field(
        False,
        description="The input is an output of UGRIE, whose embeddings another run kept: annotate its images from those, and read no image",
    )
    date: dt.date = Field(
        default_factory=lambda: dt.datetime.now(dt.UTC).date(),
        description="The night's date: the partition dt=YYYY-MM-DD; today (UTC) by default",
    )
    run_id: str = Field(
        default_factory=lambda: f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Names the run. The same name again goes on where a run that died stopped",
    )
    resume: bool = Field(
        False,
        description="Go on with the newest run in the output that was asked for the same and is not done; where there is none, begin one",
    )
    limit: int | None = Field(None, ge=1, description="Annotate only the first N images of the input that are new")
    reannotate: bool = Field(False, description="Annotate images that this model has annotated before, too")
    retry_failed: bool = Field(
        False, description="Try images again that could not be read before (missing, forbidden, timeout, unreadable, truncated, changed)"
    )
    column: str = Field("uri", description="A table's column with the URIs, or with the image bytes")
    allow_protocols: Names = Field((), description="Storage a table's URIs may point to beside the table's own, comma-separated: s3,https")
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="fsspec's options for input and output, as a JSON object; never recorded"
    )
    keep_embeddings: bool = Field(False, description="Write each image's embedding too")
    table_format: TableFormat = Field(
        "parquet", description="parquet, or delta: the same files, and a log that makes annotations/ a Delta table (needs ugrie[delta])"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda: auto takes GPUs where Ray has them")
    precision: Precision = Field("auto", description="The image tower's: auto (bf16 on a GPU, fp32 on a CPU), fp32, bf16, or int8 on a CPU")
    num_actors: int | None = Field(None, ge=1, description="Copies of the model; by default one per GPU (or share of one), or by the CPUs")
    num_loaders: int | None = Field(None, ge=1, description="Blocks that are fetched and decoded at once; by default as the CPUs allow")
    cpus: int | None = Field(
        None,
        ge=1,
        description="CPUs that Ray's cluster has once it has grown, where it grows; by default those that it has when the run begins",
    )
    gpus: int | None = Field(None, ge=0, description="GPUs, the same")
    gpus_per_actor: float = Field(1.0, gt=0, le=1, description="Share of a GPU that one copy takes")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Images that go through the image tower together; by default as many as a short trial on the device finds best",
    )
    block_rows: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Images that are fetched, annotated and written as one; by default 256, fewer in small runs; 16,384 from embeddings",
    )
    fetch_concurrency: int = Field(16, ge=1, le=256, description="Images that one worker fetches at once")
    fetch_timeout: float = Field(
        60.0, gt=0, le=86_400, description="Seconds that reading one image may take, with all attempts; then it is given up (timeout)"
    )
    max_bytes: int = Field(50_000_000, ge=1, description="A larger file is not read (too_large)")
    max_pixels: int = Field(100_000_000, ge=1, description="An image of more pixels is not decoded (too_large)")
    decode_timeout: float = Field(60.0, gt=0, le=86_400, description="Seconds after which the decoding of one image is given up (timeout)")
    decode_memory: int = Field(
        4_000_000_000, ge=500_000_000, description="Bytes that decoding one image may take, where a block has killed its worker (too_large)"
    )
    max_failed_ratio: float = Field(
        1.0, ge=0, le=1, description="A run of whose images a larger share failed is not committed, and exits with 1"
    )
    reuse_days: int = Field(
        30, ge=0, le=36_500, description="Nights back whose rows are taken for images with the same bytes; 0 takes none"
    )
    report_images: bool = Field(True, description="Show the surest and the most doubtful images, small, on the run's page")
    stall_timeout: float = Field(
        3600.0, gt=0, le=604_800, description="Seconds without a block being written after which the run ends, and says why"
    )

    log_format: LogFormat = Field("text", description="The log's lines on stderr: text, or json, an object a line")
    on_success: str | None = Field(
        None, repr=False, description="A command that is run once the run is committed, or an https:// URL that gets a POST; never recorded"
    )
    on_failure: str | None = Field(
        None, repr=False, description="The same where the run fails or a setting is wrong, not where it is told to stop; never recorded"
    )

    def public(self) -> dict[str, Any]:
        """The configuration as it may be recorded: without storage options and hooks, and without the secrets of URIs."""
        settings = self.model_dump(mode="json", exclude={"storage_options", "on_success", "on_failure"})
        return {key: without_secrets(value) if isinstance(value, str) else value for key, value in settings.items()}
