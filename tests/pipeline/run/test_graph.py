"""The graph does each block that is left, once, also of a run whose blocks' numbers the driver doesn't know all at once."""

import pytest

from pipeline.config import AnnotateConfig
from pipeline.run import execute
from pipeline.run.driver import annotate
from pipeline.run.plan import prepare
from pipeline.stages import block_numbers


@pytest.mark.timeout(300)
def test_a_resumed_run_does_the_blocks_that_are_left_though_tasks_hand_out_their_numbers(
    corpus, finished, operators, rows, local_ray, monkeypatch, tmp_path
):
    monkeypatch.setattr(block_numbers, "AT_ONCE", 3)
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path), run_id="r", date="2026-01-02", block_rows=2)
    plan = prepare(config)
    operators.do(plan, [0, 7, 19])
    done = []
    monkeypatch.setattr(execute.Metrics, "add", lambda self, row: done.append(row["block"]))
    record = annotate(config)
    assert sorted(done) == sorted(set(range(20)) - {0, 7, 19})
    found = rows.of(tmp_path, record)
    assert rows.differences(rows.of(finished.output, finished.record), found, lambda row: row["image_id"]) == []
