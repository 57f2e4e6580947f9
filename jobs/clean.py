"""Run `ugrie clean`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/clean.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["clean", *sys.argv[1:]]))
