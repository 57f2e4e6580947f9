"""Runs `ugrie` and its subcommands. Each file in jobs/ runs one of them."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pipeline.cli import HELP, command_app, run_command
from pipeline.commands import annotate, clean, compact, evaluate, plan, report, review, train
from ugrie import __version__

ABOUT = "Label images with the emotions they evoke: annotate a corpus, train and evaluate models."
COMPLETION = """Print a script that completes `ugrie` in a shell.

Save it where the shell looks for completions: for bash as in the example, for
fish as ~/.config/fish/completions/ugrie.fish, for zsh as _cyclopts_ugrie in a
folder of $fpath. It starts no Python: save it again after an upgrade.
"""
COMPLETION_EXAMPLE = """\
mkdir -p ~/.local/share/bash-completion/completions
ugrie completion bash > ~/.local/share/bash-completion/completions/ugrie"""

app = App(
    name="ugrie",
    help=ABOUT,
    help_epilogue="`ugrie COMMAND --help` shows the settings of a command, with an example.",
    help_format="plaintext",
    version=__version__,
    version_flags=["--version"],
    result_action="return_value",
)
completion_app = command_app("completion", COMPLETION, COMPLETION_EXAMPLE)
COMMANDS = (*(module.app for module in (annotate, plan, report, review, train, evaluate, clean, compact)), completion_app)
for position, command in enumerate(COMMANDS):
    command.sort_key = position
    app.command(command)
app["--help"].group = app["--version"].group = HELP


@completion_app.default
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell")], /) -> None:
    script = app.generate_completion(shell=shell)
    # Where the settings know no values, the shell completes names of files, as fish does by itself.
    script = script.replace("complete -F", "complete -o default -o bashdefault -F")
    if shell == "zsh":
        script = re.sub(r"(\]:[\w-]+|^\s+'\d:(?!.*->).*)' \\$", r"\1:_default' \\", script, flags=re.MULTILINE)
    print(script)


def run(tokens: Sequence[str] | None = None) -> int:
    """Run `ugrie` with these arguments, by default those of the command line, and return the exit code."""
    if tokens is None:
        tokens = sys.argv[1:]
    given = next(iter(tokens), "")
    return run_command(app, given if any(given in command.name for command in COMMANDS) else "ugrie", tokens)


if __name__ == "__main__":
    sys.exit(run())
