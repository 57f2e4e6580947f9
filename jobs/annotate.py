"""Run `ugrie annotate`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/annotate.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["annotate", *sys.argv[1:]]))
