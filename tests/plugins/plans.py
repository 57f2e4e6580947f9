"""What tests of planning ask of a plan."""

from typing import Any

import pyarrow as pa

from pipeline.stages.write import file_name


def write_block(plan: Any, number: int) -> None:
    """Write some bytes as a block's file: planning reads only the names of these files."""
    plan.output.write(f"{plan.rows_folder}/{file_name(number)}", b"rows")


def manifest(plan: Any) -> pa.Table:
    """All images of a plan, in order."""
    return pa.concat_tables(plan.manifest.read(plan.output, block) for block in range(plan.manifest.blocks))
