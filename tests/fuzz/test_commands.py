"""Arguments and configuration files of `ugrie annotate`, up to the start of its run."""

from hypothesis import strategies as st

from pipeline.config import AnnotateConfig
from tests.fuzz.inputs import changed, mutated, toml

FLAGS = [f"--{name.replace('_', '-')}" for name in AnnotateConfig.model_fields]
WORDS = st.sampled_from(
    ["", "5", "-1", "1e999", "nan", "auto", "2026-01-02", "a,b", "{}", '{"key": 1}', "[1]", "--", "x" * 5000, "\x1b[2J", "a\nb"]
)
TOKENS = st.sampled_from([*FLAGS, "--config", "job.toml", "--no-keep-embeddings", "--help", "--date=5", "-x", "--storage-options.a"])
OWN = {
    "input": "in",
    "output": "out",
    "schemes": ["polarity2", "valence"],
    "date": "2026-01-02",
    "run_id": "night-1",
    "limit": 5,
    "allow_protocols": ["https"],
    "storage_options": {"key": "k", "client_kwargs": {"endpoint_url": "http://x"}},
    "keep_embeddings": True,
    "gpus_per_actor": 0.5,
    "fetch_timeout": 3.5,
}
ODD = [b"\xff\xfe", b"x = " + b"[" * 5000, b"x = 1" + b"0" * 5000, b"", b"[annotate]\ninput = 1"]


def test_arguments_begin_a_run_or_are_a_user_error(explore):
    tokens = st.lists(TOKENS | WORDS | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), max_size=6)
    base = st.sampled_from([[], ["--input", "in", "--output", "out"], ["--config", "job.toml"]])
    outcomes = explore(
        "job", st.tuples(base, tokens).map(lambda pair: pair[0] + pair[1]), lambda given: (given, {"job.toml": toml(OWN)}), 50
    )
    assert outcomes.keys() == {"valid", "UserError"}


def test_a_configuration_file_begins_a_run_or_is_a_user_error(explore):
    files = changed([OWN]).map(toml) | mutated([toml(OWN)]) | st.sampled_from(ODD)
    outcomes = explore("job", files, lambda text: (["--config", "job.toml"], {"job.toml": text}), 50)
    assert outcomes.keys() == {"valid", "UserError"}
