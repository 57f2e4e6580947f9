"""Run `ugrie train`, as the file that `ray job submit` names.

ray job submit --working-dir . -- python jobs/train.py …
"""

import sys

from pipeline.commands.main import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
