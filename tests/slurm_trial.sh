#!/usr/bin/env bash
# `make report PROFILE=slurm` for real: on a cluster of one node, this one, that is started for it and stopped again.
# Usage, as root on Debian: tests/slurm_trial.sh [STUDY]   (digits by default: some ten minutes; no part of make test)
set -euo pipefail
cd "$(dirname "$0")/.."
study=${1:-digits}
[ "$(id -u)" = 0 ] || { echo "error: slurmd has to be started by root" >&2; exit 1; }

scratch=$(mktemp -d)
chmod 711 "$scratch"  # munged wants its socket to be within everyone's reach
export TRUST_RESULTS=$scratch/results  # empty, so that every job of the graph has to run
export SLURM_CONF=$scratch/slurm.conf  # a configuration in /etc/slurm stays as it is, and unread

daemons=()
stop() {
    status=$?
    if [ ${#daemons[@]} -gt 1 ]; then
        scancel --user=root || true
        timeout 60 bash -c 'while [ -n "$(squeue --noheader)" ]; do sleep 1; done' || true
    fi
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" || true
        wait "${daemons[i]}" || true
    done
    if [ $status = 0 ]; then rm -rf "$scratch"; else echo "FAILED; logs are in $scratch" >&2; fi
}
trap stop EXIT
trap 'exit 1' INT TERM  # or a signal would leave `stop` the status of the last command

if ! hash slurmctld slurmd squeue munged 2> /dev/null; then
    apt-get update --quiet=2
    apt-get install --quiet=2 --yes --no-install-recommends slurm-wlm munge
    service munge stop || true  # where the package has started one; ours has its own key and socket
fi

# No cgroups, which a container may not have, and no accounting: the harder case for asking how jobs are.
mkdir "$scratch"/{bin,state,spool}
cat > "$SLURM_CONF" <<END
ClusterName=trial
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$scratch/munge.socket
# Not the usual ports: the machine may be a node of a cluster.
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Seconds for which a finished job is remembered: the table at the end asks about all.
MinJobAge=86400
$(slurmd -C | head -n 1) NodeAddr=127.0.0.1
PartitionName=trial Nodes=ALL Default=YES
END
# In a job the plugin drops all variables SLURM_... before it calls srun, which then would look for /etc/slurm.
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" > "$scratch/bin/srun"
chmod +x "$scratch/bin/srun"
export PATH=$scratch/bin:$PATH

(umask 077 && head --bytes=1024 /dev/urandom > "$scratch/munge.key")
start() {  # in a session of its own: Ctrl-C stops make, which takes its jobs back, and then `stop` the daemons
    setsid "$@" &> "$scratch/$1.log" &
    daemons+=($!)
}
start munged --foreground --key-file="$scratch/munge.key" --seed-file="$scratch/munged.seed" \
    --socket="$scratch/munge.socket" --pid-file="$scratch/munged.pid"
start slurmctld -D
start slurmd -D
timeout 60 bash -c 'until [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ]; do sleep 1; done'
sinfo --version
sinfo --Node --long

make report STUDY="$study" PROFILE=slurm 2>&1 | tee "$scratch/make.log"

echo
squeue --states=all --sort=i --format="%i %k %N %M %T" | sed 's/rule_//; s/_wildcards_/-/' | column -t
jobs=$(($(awk '$1 == "total" {print $2; exit}' "$scratch/make.log") - 1))  # without the page
completed=$(squeue --states=COMPLETED --noheader | wc -l)
submitted=$(squeue --states=all --noheader | wc -l)
echo "$completed of $submitted submitted jobs completed; the graph has $jobs"
[ "$completed" = "$jobs" ] && [ "$submitted" = "$jobs" ]
test -s "$TRUST_RESULTS/runs/$(basename "$study" .yaml)/report.html"
