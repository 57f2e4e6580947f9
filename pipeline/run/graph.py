"""The Ray Data graph of a run: load -> annotate -> write, or re-annotate -> write from embeddings."""

from typing import Any

from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.images.decode import Limits
from pipeline.images.fetch import Fetcher
from pipeline.run.plan import Plan
from pipeline.run.resources import Allocation
from pipeline.stages.annotate import Annotator, AnnotatorSettings
from pipeline.stages.block_numbers import block_numbers
from pipeline.stages.dedup import Deduplicator
from pipeline.stages.load import Loader
from pipeline.stages.reannotate import Reannotator
from pipeline.stages.tracker import BlockTracker
from pipeline.stages.write import BlockWriter
from pipeline.table.output_folder import OutputFolder

BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def operators(
    plan: Plan, allocation: Allocation, tracker: BlockTracker, dedup: Deduplicator
) -> tuple[Loader, AnnotatorSettings, BlockWriter]:
    """Return a run's three operators; of the annotator, the settings that an actor builds it from."""
    config = plan.config
    loader = Loader(
        output=plan.output,
        manifest=plan.manifest,
        fetcher=Fetcher.of(config),
        tables=plan.tables,
        limits=Limits.of(config, plan.tables.crop_size),
        tracker=tracker,
        dedup=dedup,
        suppressed=plan.lists.suppressed,
    )
    settings = AnnotatorSettings(
        model=config.model,
        options=config.storage_options,
        tower_weights=config.tower_weights,
        schemes=plan.tables.answered,
        tables=plan.tables,
        run_id=config.run_id,
        device=allocation.device,
        precision=config.precision,
        threads=allocation.threads,
        batch_size=config.batch_size,
        block_rows=plan.manifest.block_rows,
        tracker=tracker,
    )
    return loader, settings, BlockWriter(output=plan.output, folder=plan.rows_folder, tables=plan.tables, tracker=tracker)


def graph(plan: Plan, allocation: Allocation, tracker: BlockTracker, dedup: Deduplicator) -> Dataset:
    """Return the operators applied to the blocks that are left. A row of the result is a block that was written."""
    loader, settings, writer = operators(plan, allocation, tracker, dedup)
    numbers = block_numbers(plan.todo)
    # `map_batches` refuses GPUs without a batch size. A block is one batch whatever its rows are, and the annotator has sizes of its own.
    in_actors: dict[str, Any] = {
        "compute": ActorPoolStrategy(
            min_size=allocation.least_actors, max_size=allocation.actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
        ),
        "num_cpus": allocation.actor_cpus,
        "num_gpus": allocation.actor_gpus,
        **BLOCK,
    }
    if plan.config.from_embeddings:
        source = OutputFolder(plan.config.input, plan.config.storage_options)
        arguments = (settings, source, plan.output, plan.manifest, plan.lists.suppressed)
        annotated = numbers.map_batches_internal(Reannotator, fn_constructor_args=arguments, **in_actors)
    else:
        loaded = numbers.map_batches(loader, compute=TaskPoolStrategy(size=allocation.loaders), num_cpus=allocation.load, **BLOCK)
        annotated = loaded.map_batches_internal(Annotator, fn_constructor_args=(settings,), **in_actors)
    return annotated.map_batches(writer, num_cpus=allocation.write, **BLOCK)
