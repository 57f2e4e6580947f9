"""Run `ugrie plan`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/plan.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["plan", *sys.argv[1:]]))
