"""Settings of an annotation run, as one typed model. Flags, the TOML file and docs/reference.md are derived from it."""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.errors import UserError
from pipeline.logs import LogFormat
from pipeline.storage.spelling import canonical
from pipeline.storage.ssrf import USER_AGENT
from pipeline.storage.uris import without_secrets


def _comma_separated(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    return None if words is None else tuple(part.strip() for word in words for part in str(word).split(",") if part.strip())


Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
TableFormat = Literal["parquet", "delta", "iceberg"]
Place = Annotated[str, AfterValidator(canonical)]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]

# The groups of settings, in the order of --help and docs/reference.md.
INPUT = Parameter(group=Group("Input", sort_key=1))
OUTPUT = Parameter(group=Group("Output", sort_key=2))
MODEL = Parameter(group=Group("Model", sort_key=3))
RESOURCES = Parameter(group=Group("Resources", sort_key=4))
LIMITS = Parameter(group=Group("Limits", sort_key=5))
OPERATIONS = Parameter(group=Group("Operations", sort_key=6))
# Defaults in --help: digits in groups (50_000_000), and none where it is empty or different in each run.
GROUPED_DIGITS = Parameter(show_default="{:_}".format)
NO_DEFAULT = Parameter(show_default=False)


class AnnotateConfig(BaseModel):
    """Settings of one run: input, output, model, resources, limits and operations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The required settings come first, so that `annotate.py INPUT OUTPUT` works, too.
    input: Annotated[Place, INPUT] = Field(
        min_length=1,
        description="Images: a folder, prefix or glob; a table of URIs (.parquet, .csv, .jsonl …) or image bytes (.parquet); "
        "a table of Delta or Iceberg; .tar shards; hf://datasets/org/name",
    )
    output: Annotated[Place, OUTPUT] = Field(min_length=1, description="Folder or prefix that receives annotations/ and runs/")

    # Input. Cyclopts gives no position to a JSON object, nor to what follows it: from here on settings are flags only.
    storage_options: Annotated[dict[str, Any], INPUT, NO_DEFAULT] = Field(
        default_factory=dict, description="fsspec options for input and output, as a JSON object; never recorded"
    )
    column: Annotated[str, INPUT] = Field("uri", description="Table column with the URIs or the image bytes")
    keep_columns: Annotated[Names, INPUT, NO_DEFAULT] = Field(
        (),
        description="Columns of the input's table to write into every output row, comma-separated; new=old renames one, such as post=id",
    )
    allow_protocols: Annotated[Names, INPUT, NO_DEFAULT] = Field(
        (), description="Protocols that a table's URIs may use besides the table's own, comma-separated, such as s3,https"
    )
    user_agent: Annotated[str, INPUT] = Field(
        USER_AGENT,
        pattern=r"^[\x20-\x7e]{1,500}$",
        description="User-Agent of requests for http(s) links; some servers want a contact",
    )
    suppress: Annotated[Place | None, INPUT] = Field(
        None,
        description="List of images that are never fetched, annotated, shown or copied: a text with one URI, image_id or content_hash a "
        "line, or a .parquet with columns of these names",
    )
    from_embeddings: Annotated[bool, INPUT] = Field(
        False, description="Annotate embeddings stored by earlier runs: the input is an output of UGRIE, and no image is read"
    )
    limit: Annotated[int | None, INPUT] = Field(None, ge=1, description="Annotate only the first N new images of the input")
    reannotate: Annotated[bool, INPUT] = Field(False, description="Include images that this model has already annotated")
    retry_days: Annotated[int, INPUT] = Field(
        3,
        ge=0,
        le=36_500,
        description="Days to retry an image from its first failure on, if it may pass (missing, forbidden, timeout, unreadable, "
        "truncated, changed); 0 never retries",
    )
    reuse_days: Annotated[int, INPUT] = Field(
        30, ge=0, le=36_500, description="Days to look back for rows of images with the same bytes, to copy them; 0 uses no earlier run"
    )

    # Output
    date: Annotated[dt.date, OUTPUT, NO_DEFAULT] = Field(
        default_factory=lambda: dt.datetime.now(dt.UTC).date(),
        description="Date of the run and of its partition, dt=YYYY-MM-DD; by default today (UTC)",
    )
    keep_embeddings: Annotated[bool, OUTPUT] = Field(False, description="Write each image's embedding, too")
    table_format: Annotated[TableFormat, OUTPUT] = Field(
        "parquet",
        description="parquet; or delta or iceberg: the same files, and a log or metadata that make annotations/ a Delta or Iceberg table "
        "(needs ugrie[delta] or ugrie[iceberg])",
    )
    iceberg_table: Annotated[str | None, OUTPUT] = Field(
        None,
        pattern=r"^[^\s.]+(\.[^\s.]+){2,}$",
        description="Name of the Iceberg table, CATALOG.NAMESPACE.TABLE, in a catalog of pyiceberg's configuration; by default the output "
        "has a catalog of its own",
    )
    report_images: Annotated[bool, OUTPUT] = Field(
        True, description="Show thumbnails of the most and the least certain images in the run's report"
    )

    # Model
    model: Annotated[str, MODEL] = Field(
        "ugrie-tiny",
        description="Name of a bundled checkpoint, a checkpoint's folder or URL, or org/name or org/name@revision on the Hugging Face Hub",
    )
    tower_weights: Annotated[str | None, MODEL] = Field(
        None, description="File or URL of CLIP weights, for a model that does not bundle its own"
    )
    schemes: Annotated[Names | None, MODEL] = Field(
        None,
        description="Emotion models (schemes) to annotate, comma-separated: names, or paths of .toml files; by default all that the "
        "checkpoint was trained for. Others are answered zero-shot, if its image tower is a CLIP known by name",
    )
    precision: Annotated[Precision, MODEL] = Field(
        "auto",
        description="Precision of the image tower: auto (fp16 on a GPU, fp32 on a CPU), fp32, fp16 (GPU only), bf16, or int8 (CPU only)",
    )

    # Resources
    device: Annotated[Literal["auto", "cpu", "cuda"], RESOURCES] = Field(
        "auto", description="auto, cpu or cuda: auto uses GPUs where Ray has them"
    )
    num_actors: Annotated[int | None, RESOURCES] = Field(
        None, ge=1, description="Copies of the model; by default one per GPU (or share of a GPU), without GPUs one per four CPUs"
    )
    num_loaders: Annotated[int | None, RESOURCES] = Field(
        None, ge=1, description="Blocks fetched and decoded in parallel; by default one per CPU, without GPUs one per two CPUs"
    )
    cpus: Annotated[int | None, RESOURCES] = Field(
        None, ge=1, description="CPUs of an autoscaling Ray cluster at its full size; by default those it has when the run starts"
    )
    gpus: Annotated[int | None, RESOURCES] = Field(
        None, ge=0, description="GPUs of an autoscaling Ray cluster at its full size; by default those it has when the run starts"
    )
    gpus_per_actor: Annotated[float, RESOURCES] = Field(
        1.0, ge=0.0001, le=1, description="Share of a GPU for each copy of the model, to four decimals"
    )
    planning: Annotated[Literal["auto", "driver", "cluster"], RESOURCES] = Field(
        "auto",
        description="Who lists the input and compares it with earlier runs: the driver alone, or the cluster's tasks; auto is the cluster "
        "above ten million images",
    )
    batch_size: Annotated[int | None, RESOURCES] = Field(
        None,
        ge=1,
        description="Images per batch of the image tower, at most 256 and a block's rows; by default the best in a short trial",
    )
    block_rows: Annotated[int | None, RESOURCES] = Field(
        None,
        ge=1,
        le=4096,
        description="Images per block, which is fetched, annotated and written as one; "
        "by default 256, fewer in small runs, 16,384 from embeddings",
    )
    fetch_concurrency: Annotated[int, RESOURCES] = Field(16, ge=1, le=256, description="Images that one loader fetches in parallel")

    # Limits
    fetch_timeout: Annotated[float, LIMITS] = Field(
        60.0, gt=0, le=86_400, description="Seconds to read one image, all attempts included; then its status is timeout"
    )
    max_bytes: Annotated[int, LIMITS, GROUPED_DIGITS] = Field(
        50_000_000, ge=1, description="Bytes of the largest file to read; a larger one gets status too_large"
    )
    max_pixels: Annotated[int, LIMITS, GROUPED_DIGITS] = Field(
        100_000_000, ge=1, description="Pixels of the largest image to decode; a larger one gets status too_large"
    )
    decode_timeout: Annotated[float, LIMITS] = Field(
        60.0, gt=0, le=86_400, description="Seconds to decode one image; then its status is timeout"
    )
    decode_memory: Annotated[int, LIMITS, GROUPED_DIGITS] = Field(
        4_000_000_000,
        ge=500_000_000,
        description="Bytes of memory to fetch and decode one image, if its block has killed a worker; one that needs more gets too_large",
    )
    max_failed_ratio: Annotated[float, LIMITS] = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of failed images among new ones; a run with more, or with none annotated, is not committed and "
        "exits with 1. Of fewer than 10 new images only failures that may pass count",
    )
    stall_timeout: Annotated[float, LIMITS] = Field(
        3600.0, gt=0, le=604_800, description="Seconds without a written block after which the run stops and reports why"
    )

    # Operations
    run_id: Annotated[str, OPERATIONS, NO_DEFAULT] = Field(
        default_factory=lambda: f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of the run; the name of a run that stopped resumes it. By default the time and a random suffix",
    )
    resume: Annotated[bool, OPERATIONS] = Field(
        False, description="Resume the output's newest unfinished run with the same input and model; if there is none, start a new run"
    )
    log_format: Annotated[LogFormat, OPERATIONS] = Field(
        "text", description="Format of the log on stderr: text, or json with one object per line"
    )
    on_success: Annotated[str | None, OPERATIONS] = Field(
        None, repr=False, description="Command to run, or https:// URL to POST to, after the run is committed; never recorded"
    )
    on_failure: Annotated[str | None, OPERATIONS] = Field(
        None,
        repr=False,
        description="Command or https:// URL for a run that fails or has a wrong setting, not for one that is stopped; never recorded",
    )

    def public(self) -> dict[str, Any]:
        """Return the settings that may be recorded: without storage options and hooks, and without the secrets of URIs."""
        settings = self.model_dump(mode="json", exclude={"storage_options", "on_success", "on_failure"})
        return {key: without_secrets(value) if isinstance(value, str) else value for key, value in settings.items()}


def check_precision(config: AnnotateConfig, device: str) -> None:
    """Check that a device, cpu or cuda, computes in the precision asked for. Runs from embeddings have no tower. Raises UserError."""
    if config.from_embeddings:
        return
    if config.precision == "int8" and device == "cuda":
        raise UserError("precision = int8 is for CPUs, and this run is for GPUs: leave it at auto, or set device to cpu")
    if config.precision == "fp16" and device == "cpu":
        raise UserError("precision = fp16 is for GPUs, and this run is for CPUs: leave it at auto, which is fp32")
