"""`ugrie` itself: its subcommands, its start, its version, and the shell's completion."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.commands.main import COMMANDS, run
from ugrie import __version__

ROOT = Path(__file__).parents[3]
# Nothing of these is needed to show help: the first three take seconds to import, the others tenths of one.
HEAVY = {"torch", "ray", "transformers", "pyarrow", "numpy", "fsspec", "huggingface_hub"}


def test_without_arguments_it_lists_its_subcommands(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: ugrie COMMAND\n")
    positions = [shown.index(f"│ {command.name[0]} ") for command in COMMANDS]
    assert positions == sorted(positions)
    assert "jobs/" not in shown


@pytest.mark.parametrize("name", [command.name[0] for command in COMMANDS])
def test_the_help_of_a_subcommand_ends_with_an_example_of_two_lines(name, capsys):
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: ugrie {name}")
    assert "--empty-" not in shown
    first, second = shown.rpartition("Example:\n")[2].splitlines()  # neither is wrapped, at 80 characters
    assert f"ugrie {name} " in f"{first} {second}"


def test_it_states_its_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (["anotate", "--input", "in"], 'ugrie: Unknown command "anotate". Did you mean "annotate"? Available commands: annotate, plan, '),
        (["--inptu"], 'ugrie: Unknown command "--inptu".'),
        (["clean", "--outptu", "out"], "clean: Parameter --output requires an argument. Did you mean --output instead of --outptu?"),
        (["completion", "tcsh"], 'completion: Invalid value "tcsh" for SHELL. Choose from: "bash", "zsh", "fish".'),
    ],
)
def test_what_is_misspelt_is_one_line_and_exit_code_two(capsys, tokens, line):
    assert run(tokens) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_without_a_list_it_reads_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ugrie", "--version"])
    assert run() == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_installing_it_makes_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"ugrie": "pipeline.commands.main:run"}
    assert "jobs*" not in project["tool"]["setuptools"]["packages"]["find"]["include"]


def test_an_installation_holds_every_file_that_is_no_module():
    """Schemes, layouts, checkpoints, the report's template."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("pipeline", "ugrie"):
        installed = {path for pattern in patterns[package] for path in (ROOT / package).glob(pattern)}
        files = {path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
        assert len(files) >= 2
        assert files - installed == set()


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [["--help"], *([command.name[0], "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_that_takes_long(tokens):
    program = f"import sys; from pipeline.commands.main import run; run({tokens}); print(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY & set(done.stderr.splitlines()) == set()


# --- the shell's completion

COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2)) COMP_LINE="${*:2}" COMP_POINT=${#COMP_LINE}
specification=$(complete -p ugrie)
[[ $specification == *" -o default "* ]] || exit 3
function=${specification##*-F } function=${function%% *}
"$function" ugrie "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """Return a function that completes the last of the words in a bash of its own."""
    script = tmp_path_factory.mktemp("completion") / "ugrie.bash"
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.commands.main", "completion", "bash"], cwd=ROOT, capture_output=True, check=True
    )
    script.write_bytes(shown.stdout)

    def complete(*words: str) -> list[str]:
        command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), "ugrie", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["an"], ["annotate"]),
        (["co"], ["compact", "completion"]),
        (["annotate", "--prec"], ["--precision"]),
        (["annotate", "--precision", ""], ["auto", "fp32", "fp16", "bf16", "int8"]),
        (["annotate", "--input", "in", "--log-format", "j"], ["json"]),
        (["plan", "--dollars"], ["--dollars-an-hour"]),
        (["clean", "--dry"], ["--dry-run"]),
        (["annotate", "--empty"], []),
        (["annotate", "--input", "pho"], []),  # bash's own: names of files
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes_subcommands_flags_and_values(bash, words, completed):
    assert bash(*words) == completed


def test_zsh_completes_names_of_files_where_a_setting_knows_no_values(capsys):
    assert run(["completion", "zsh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "#compdef ugrie"
    assert any("'*--input[" in line and line.endswith(":input:_default' \\") for line in lines)
    assert any(line.lstrip().startswith("'2:Folder") and line.endswith(":_default' \\") for line in lines)
    assert any(line.endswith(':precision:(auto fp32 fp16 bf16 int8)" \\') for line in lines)


def test_fish_has_a_line_for_every_flag(capsys):
    assert run(["completion", "fish"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        for argument in command.assemble_argument_collection():
            for name in argument.names:
                assert not name.startswith("--") or f"-l {name.removeprefix('--')} " in shown, name
