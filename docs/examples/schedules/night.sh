#!/usr/bin/env bash
# Run one night on a cluster of its own: start it, use it, and take it down whatever happens. Takes the flags of jobs/annotate.py:
#
#   docs/examples/schedules/night.sh --input s3://bucket/images/ --output s3://bucket/emotions --cpus 90 --gpus 5
#
# It tries three times; --resume makes each try continue where the last one stopped. The exit code is 0 once the run is committed, else 1.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export RAY_AUTH_MODE=token # the token is ~/.ray/auth_token, which cluster.yaml copies to the machines

stop() {
  kill "${tunnel:-}" 2>/dev/null || true
  ray down --yes cluster.yaml
}
trap stop EXIT

ray up --yes cluster.yaml
ray dashboard cluster.yaml & # a tunnel to the head, whose dashboard listens on the loopback only
tunnel=$!
for attempt in 1 2 3; do
  sleep "${PAUSE:-60}"
  if ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/annotate.py --resume "$@"; then
    exit 0
  fi
  echo "attempt $attempt did not commit the run" >&2
done
exit 1
