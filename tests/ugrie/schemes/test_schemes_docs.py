"""docs/schemes.md lists all bundled schemes and crosswalks, and its examples work."""

import doctest
import re
from pathlib import Path

from ugrie.schemes.scheme import bundled_schemes, load_scheme

BUNDLED = [load_scheme(name) for name in bundled_schemes()]
CROSSWALKS = [(scheme, target) for scheme in BUNDLED for target in scheme.crosswalks]
DOCS = (Path(__file__).parents[3] / "docs" / "schemes.md").read_text()


def test_the_example_of_the_docs_is_a_scheme(tmp_path):
    text = re.search(r"```toml\n# (\S+)\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / text[1]).write_text(text[2])
    scheme = load_scheme(str(tmp_path / text[1]))
    assert scheme.wheel_distance.max() == 2
    assert scheme.crosswalk(load_scheme("ekman6"))[scheme.label_index("tense")].tolist() == [0.5, 0, 0.5, 0, 0, 0]


def test_the_docs_say_what_the_files_say():
    for scheme in BUNDLED:
        labels = ", ".join(scheme.label_names) if scheme.kind == "categorical" else f"{scheme.label_names[0]} … {scheme.label_names[-1]}"
        assert f"| `{scheme.name}` | {labels}" in DOCS
    for scheme, target in CROSSWALKS:
        stated = scheme.crosswalks[target]
        assert f"| `{scheme.name}` | `{target}` | {', '.join(stated.unmapped) or 'none'} | {stated.source} |" in DOCS


def test_the_docs_python_does_what_it_says():
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL))
    result = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(code, {}, "schemes.md", None, 0))
    assert (result.failed, result.attempted) == (0, code.count(">>>"))
