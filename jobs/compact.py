"""Run `ugrie compact`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/compact.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["compact", *sys.argv[1:]]))
