#!/usr/bin/env bash
# Ray 2.60.0: a driver that connects with log_to_driver=False and logging_level=ERROR still finds lines on its own
# stdout that it never printed. When an actor's process ends and the actor is started anew, the raylet's message about
# it goes to stdout of the driver, in colours, at any moment up to the driver's end: so neither the first nor the last
# line of a program that prints JSON can be relied on.
#
# The way out: a file for what is to be read, or a pipe of one's own instead of stdout.
#
# Needs: python3 with venv, and pip's index. Installs into a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" > "$folder/log" 2>&1 && "$folder/venv/bin/pip" install -q ray==2.60.0 \
  >> "$folder/log" 2>&1 || { cat "$folder/log"; echo "FAILED: ray cannot be had here"; exit 1; }
cat > "$folder/driver.py" <<'PY'
import logging, os, time

import ray


@ray.remote(max_restarts=1, max_task_retries=1)
class Counter:
    def first_ends(self, mark):
        if not os.path.exists(mark):
            open(mark, "w").close()
            os._exit(1)
        return 1


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    counter = Counter.remote()
    result = ray.get(counter.first_ends.remote(os.environ["MARK"]))
    print('{"result": %d}' % result, flush=True)
    time.sleep(8)
PY
MARK="$folder/mark" "$folder/venv/bin/python" "$folder/driver.py" > "$folder/stdout" 2> "$folder/stderr"
grep -q '^{"result": 1}$' "$folder/stdout" || { echo "FAILED: no result"; cat "$folder/stderr"; exit 1; }
foreign=$(grep -vc '^{"result": 1}$' "$folder/stdout" || true)
echo "lines on stdout that the driver did not print: $foreign"
grep -o '(raylet)' "$folder/stdout" | sort -u
[ "$foreign" -gt 0 ] && grep -q 'raylet' "$folder/stdout" || { echo "CHANGED: stdout is the driver's own"; exit 1; }
echo "as described"
