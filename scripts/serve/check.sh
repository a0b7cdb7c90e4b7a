#!/usr/bin/env bash
# Starts a server, asks it as other programs' clients and as a person would, and stops it:
#
#     python3 -m venv venv && venv/bin/pip install --requirement .ci/serve.txt
#     bash scripts/serve/check.sh target/release/structtoken runs/x/model.safetensors photo.jpg venv/bin/python
#
# Ends with an error if an answer, the page or the end of the server is not as it should be.
set -euo pipefail
binary=$1 model=$2 photo=$3 python=$4
scripts=$(dirname "$0")
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

export ADMIN_TOKEN=an-admin-token-of-this-check
printf %s "$ADMIN_TOKEN" > "$work/admin"
"$binary" serve "checked=$model" --bind 127.0.0.1:0 --admin-token-file "$work/admin" 2> "$work/log" &
server=$!
url=
for _ in $(seq 300); do
  url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$work/log")
  if [ -n "$url" ] || ! kill -0 "$server" 2>/dev/null; then break; fi
  sleep 0.1
done
[ -n "$url" ] || { cat "$work/log" >&2; exit 1; }

"$python" "$scripts/clients.py" "$url" "$photo" > "$work/clients" || { cat "$work/clients" "$work/log"; exit 1; }
tail -n 1 "$work/clients"
"$python" "$scripts/page.py" "$url/" "$photo" > "$work/page" || { cat "$work/page" "$work/log"; exit 1; }
tail -n 1 "$work/page"
kill -TERM "$server"
wait "$server" || { cat "$work/log"; echo "the server did not end as it should"; exit 1; }
