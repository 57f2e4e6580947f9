"""What holds in tables of both formats."""

import pytest

from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import table_format


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_run_whose_files_are_in_lists_is_added_with_all_of_them(night, tmp_path, in_lists, kind):
    record = night(tmp_path, "2026-01-02", [(f"file:///{i}.jpg", b"%d" % i) for i in range(6)], schemes=("valence",), parts=3)
    output = OutputFolder(str(tmp_path), {})
    in_lists(output)
    table_format.FORMATS[kind].add(output)
    assert table_format.FORMATS[kind].files(output) == set(record.files)
    assert table_format.files_of(output, [record]) == sorted(record.files)
