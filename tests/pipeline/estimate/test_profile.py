"""A sample annotated without Ray, and timed."""

from collections import Counter

import pytest

from pipeline.config import AnnotateConfig
from pipeline.estimate.profile import profile_images
from pipeline.estimate.scan import scan_input
from pipeline.run.plan import tables_of


@pytest.fixture(scope="module")
def tried(corpus, tmp_path_factory):
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path_factory.mktemp("out")), batch_size=4)
    tables = tables_of(config)
    return profile_images(config, tables, scan_input(config, tables, 40).sample)


def test_every_image_has_the_status_that_a_run_would_give_it(tried, corpus):
    assert tried.status == Counter(corpus.status.values())
    assert len(tried.failures) == 6
    assert any("cut_off.jpg  corrupt: " in failure for failure in tried.failures)


def test_each_stage_has_its_time(tried):
    assert len(tried.decode) == tried.status["ok"]
    assert tried.decode.min() > 0
    assert tried.fetch_core >= 0
    assert tried.annotate > 0
    assert (tried.device, tried.batch_size) == ("cpu", 4)
    assert len(tried.bytes) <= 40
