"""Run `ugrie evaluate`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/evaluate.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["evaluate", *sys.argv[1:]]))
