#!/bin/sh
# A Slurm of one node, this machine, to try job arrays on: needs root, and Debian's packages munge, slurmctld, slurmd and
# slurm-client.
#
#     sh single_node.sh start DIR    # all that it writes is in DIR
#     export SLURM_CONF=DIR/slurm.conf
#     sh single_node.sh stop DIR
set -eu
command=$1
dir=$2
export SLURM_CONF="$dir/slurm.conf"
case $command in
start)
    mkdir -p "$dir/state" "$dir/spool"
    cores=$(nproc)
    dd if=/dev/urandom of="$dir/munge.key" bs=128 count=8 status=none
    chmod 600 "$dir/munge.key"
    cat > "$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    ;;
stop)
    for daemon in slurmd slurmctld munged; do
        if [ -f "$dir/$daemon.pid" ]; then kill "$(cat "$dir/$daemon.pid")"; fi
    done
    ;;
*)
    echo "expected start or stop" >&2
    exit 2
    ;;
esac
