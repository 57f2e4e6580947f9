#!/usr/bin/env bash
# One night on a cluster of its own: started, used, and taken down whatever happened. Its flags are those of jobs/annotate.py:
#
#   docs/examples/schedules/night.sh --input s3://bucket/images/ --output s3://bucket/emotions --cpus 90 --gpus 5
#
# It tries three times; --resume makes each go on where the one before it stopped. The exit code is 0 once the run is committed, else 1.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export RAY_AUTH_MODE=token # its token is ~/.ray/auth_token, which cluster.yaml takes along

stop() {
  kill "${tunnel:-}" 2>/dev/null || true
  ray down --yes cluster.yaml
}
trap stop EXIT

ray up --yes cluster.yaml
ray dashboard cluster.yaml & # a tunnel to the head, where the dashboard listens on the loopback alone
tunnel=$!
for attempt in 1 2 3; do
  sleep "${PAUSE:-60}"
  if ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/annotate.py --resume "$@"; then
    exit 0
  fi
  echo "attempt $attempt did not commit the run" >&2
done
exit 1
