#!/usr/bin/env bash
# Runs a binary as deploy/Dockerfile's image does, where there is no Docker: bash scripts/serve/container.sh BINARY MODEL
#
# Checks that it needs nothing but what the image has: user 65532 without capabilities, a root that is read-only, no home, an environment
# that is all but empty; that the image's own health check passes; and that SIGTERM ends it with 0. Needs root, and util-linux.
set -euo pipefail
binary=$(realpath "$1") model=$(realpath "$2")
here=$(cd "$(dirname "$0")/../.." && pwd)
port=${PORT:-18080}

# The health check as the container file has it, with the port of this try.
check=$(python3 - "$here/deploy/Dockerfile" "$port" <<'PYTHON'
import json, re, sys
text = open(sys.argv[1]).read()
print(json.loads(re.search(r"HEALTHCHECK.*?CMD (\[.*?\])\nENTRYPOINT", text, re.S).group(1))[2].replace("8080", sys.argv[2]))
PYTHON
)

log=$(mktemp)
# A mount namespace of its own: the model where the image expects it, then everything read-only.
unshare --mount bash -c '
    set -e
    mount -t tmpfs none /mnt
    install -m 755 "$1" /mnt/structtoken
    install -m 644 "$2" /mnt/model.safetensors
    mount -o remount,ro,bind /mnt
    mount -o remount,ro,bind / || mount -o remount,ro /
    if (: > /tmp/.structtoken-writable) 2>/dev/null; then mount -t tmpfs -o ro none /tmp; fi
    exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
        env -i PATH=/usr/bin:/bin HOME=/nonexistent /mnt/structtoken serve /mnt/model.safetensors --bind "0.0.0.0:$3"
' bash "$binary" "$model" "$port" 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; cat "$log"; rm -f "$log"' EXIT

for _ in $(seq 600); do
    if bash -c "$check" 2>/dev/null; then healthy=yes; break; fi
    kill -0 "$server" 2>/dev/null || { echo "FAILED it ended"; exit 1; }
    sleep 0.2
done
[ "${healthy:-}" = yes ] || { echo "FAILED the health check does not pass"; exit 1; }
echo "ok    healthy as user $(awk '/^Uid:/ { print $2 }' "/proc/$server/status"), capabilities $(awk '/^CapEff:/ { print $2 }' "/proc/$server/status")"
if bash -c "${check//healthz/nothing}"; then echo "FAILED the health check passes whatever is answered"; exit 1; fi
echo "ok    the health check tells other answers"
kill -TERM "$server"
wait "$server"
echo "ok    SIGTERM ends it with 0"
