#!/usr/bin/env bash
# One job of the graph: runs a command with its output in a log, and says on the terminal when it starts and ends.
# Usage: job.sh NAME LOG COMMAND [ARGUMENT ...]
set -u
name=$1 log=$2
shift 2
read -ra jobs <<< "${TRUST_JOBS:-}"
number=$((${#jobs[@]} + 1))  # the report's parts come last
for i in "${!jobs[@]}"; do [ "${jobs[i]}" != "$name" ] || number=$((i + 1)); done
name="[$number/$((${#jobs[@]} + 1))] $name"
IPYTHONDIR=$(mktemp -d)  # kernels that start at once would race for a shared one
trap 'rm -rf "$IPYTHONDIR"' EXIT
export IPYTHONDIR MPLBACKEND=agg PYTHONWARNINGS=ignore
# Of several GPUs the first that no other job on this machine has; a cluster gives a job its own.
for ((i = 0; i < ${TRUST_GPUS:-0} && ${TRUST_GPUS:-0} > 1; i++)); do
    [ -z "${CUDA_VISIBLE_DEVICES:-}" ] || break
    exec 9> "${TMPDIR:-/tmp}/trustlib-gpu$i.lock"
    ! flock --nonblock 9 || export CUDA_VISIBLE_DEVICES=$i
done

mkdir -p "$(dirname "$log")"
echo "$name"
# Two kernels may also race for a port: the only failure that is tried again.
if "$@" > "$log" 2>&1 || { grep -q "Address already in use" "$log" && "$@" > "$log" 2>&1; }; then
    echo "$name: done in $SECONDS s"
else
    echo "$name: FAILED after $SECONDS s; see $log" >&2
    grep -v '^$' "$log" | tail -n 3 | sed 's/^/    /' >&2
    exit 1
fi
