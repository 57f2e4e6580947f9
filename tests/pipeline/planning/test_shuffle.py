"""The same plan by tasks of Ray, and its two shuffles."""

import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.planning import cluster, pieces
from pipeline.planning.shuffle import MAX_PARTITIONS, PARTITION_ROWS, partitions_of
from pipeline.run.plan import prepare
from tests.plugins.plans import manifest


def test_partitions_are_as_many_as_the_rows_need_within_bounds():
    assert [partitions_of(rows) for rows in (0, 1, PARTITION_ROWS, PARTITION_ROWS + 1, 10**12)] == [1, 1, 1, 2, MAX_PARTITIONS]


def test_a_cluster_plans_as_the_driver_does_and_says_what_is_wrong(local_ray, tmp_path, monkeypatch):
    for number in range(3):
        uris = [f"s3://bucket/{number}/{i}.jpg" for i in range(30)]
        (tmp_path / f"{number}.csv").write_text("\n".join(["uri", *uris, *uris[:5], "s3://bucket/0/7.jpg"]))
    monkeypatch.setattr(pieces, "FILES", 1)
    monkeypatch.setattr(cluster, "partitions_of", lambda rows: 3)
    settings = {"input": str(tmp_path / "*.csv"), "output": str(tmp_path / "out"), "block_rows": 7}
    by_driver = prepare(AnnotateConfig(**settings, run_id="driver"))
    by_cluster = prepare(AnnotateConfig(**settings, run_id="cluster", planning="cluster"))
    assert by_cluster.manifest.rows == 90
    assert manifest(by_cluster).equals(manifest(by_driver))
    (tmp_path / "1.csv").write_text("url\nx")
    with pytest.raises(UserError, match=r"^\S*1\.csv has no column 'uri'"):
        prepare(AnnotateConfig(**settings, run_id="broken", planning="cluster"))
