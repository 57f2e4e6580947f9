"""Run `ugrie review`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/review.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["review", *sys.argv[1:]]))
