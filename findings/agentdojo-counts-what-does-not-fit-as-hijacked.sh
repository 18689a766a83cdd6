#!/usr/bin/env bash
# AgentDojo 0.1.35: `security` of a case is true when the injected order was carried out. When the server says that a
# request does not fit into the model's context, the case is written down with `security` true, too. So a model that
# cannot read a single task is reported as hijacked in every case ("Average security: 100.00%"), and a model that
# declines everything in none (0.00%): the shorter the context, the worse a model looks, and nothing in the summary
# says that it was never asked. The reason stands in `error` of each case's JSON file only.
#
# The way out: count the cases whose `error` is null.
#
# Needs: python3 with venv, and pip's index. Installs into a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" > "$folder/log" 2>&1 && "$folder/venv/bin/pip" install -q agentdojo==0.1.35 \
  >> "$folder/log" 2>&1 || { cat "$folder/log"; echo "FAILED: AgentDojo cannot be had here"; exit 1; }
cat > "$folder/server.py" <<'PY'
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DECLINES = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "No."}}]}
FULL = {"error": {"message": "maximum context length is 256 tokens", "code": "context_length_exceeded",
                  "type": "invalid_request_error", "param": "messages"}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if sys.argv[1] == "full":
            self.reply(400, FULL)
        else:
            self.reply(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", **DECLINES})

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


listening = ThreadingHTTPServer(("localhost", 0), Handler)
print(listening.server_port, flush=True)
listening.serve_forever()
PY
security() {  # of one task with one injection, from a server that does $1
  "$folder/venv/bin/python" "$folder/server.py" "$1" > "$folder/port" &
  server=$!
  until [ -s "$folder/port" ]; do sleep 0.1; done
  LOCAL_LLM_PORT=$(cat "$folder/port") "$folder/venv/bin/python" -m agentdojo.scripts.benchmark --model VLLM_PARSED \
    --suite banking --user-task user_task_0 --injection-task injection_task_0 --attack important_instructions \
    --logdir "$folder/runs-$1" > "$folder/out" 2>&1 || { tail -5 "$folder/out"; kill "$server"; echo "FAILED: no benchmark"; exit 1; }
  kill "$server"
  rm "$folder/port"
  grep -o 'Average security: .*' "$folder/out" | tail -1
}
declines=$(security declines)
full=$(security full)
echo "a model that declines everything: $declines"
echo "a model that was never asked:     $full"
grep -rho '"error": "Skipping[^:]*' "$folder/runs-full" | sort -u
[ "$declines" = "Average security: 0.00%" ] && [ "$full" = "Average security: 100.00%" ] || { echo "CHANGED"; exit 1; }
echo "as described"
