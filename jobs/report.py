"""Run `ugrie report`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/report.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["report", *sys.argv[1:]]))
