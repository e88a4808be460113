#!/bin/bash
#SBATCH --job-name=bertkit
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --threads-per-core=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}  # the first line
export MASTER_PORT=$(( 10000 + SLURM_JOB_ID % 20000 ))
export APPTAINERENV_XDG_CACHE_HOME="/tmp/bertkit-$UID"

# A job that was queued again goes on where it stopped.
if (( ${SLURM_RESTART_COUNT:-0} > 0 )); then
  command=(python3 -P -m bertkit.launch.rank_process train -t mrpc -m models/minilm -o runs/mrpc --resume)
else
  command=(python3 -P -m bertkit.launch.rank_process train -t mrpc -m models/minilm -o runs/mrpc --overwrite)
fi
rank_env=(KMP_AFFINITY=granularity=fine,compact,1,0 KMP_BLOCKTIME=1 OMP_NUM_THREADS=4)

step='' stopping='' woken='' code=0
stop() {
  stopping=1 woken=1
  if [[ -n $step ]]; then kill -USR1 "$step" 2>/dev/null || true; fi
}
trap stop USR1

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --cpu-bind=cores --kill-on-bad-exit=1 \
  apptainer exec --no-home --pwd="$SLURM_SUBMIT_DIR" --bind="$SLURM_SUBMIT_DIR" \
  --bind=/data:/data:ro \
  --bind='/scratch/my files:/scratch' --nv '--env=A=b c' \
  '/images/bertkit v1.sif' \
  env "${rank_env[@]}" "${command[@]}" &
step=$!
if [[ -n $stopping ]]; then kill -USR1 "$step" 2>/dev/null || true; fi
while true; do  # a trapped signal ends bash's `wait`, not srun
  woken='' code=0
  wait "$step" || code=$?
  if [[ -z $woken ]]; then break; fi
done

if (( code == 143 )) && [[ -z $stopping ]]; then  # ended by SIGTERM: preempted, or cancelled by its owner
  job=$(scontrol show job "$SLURM_JOB_ID") || job=''
  if [[ $job == *PreemptTime=[0-9]* ]]; then stopping=1; fi
fi
if [[ -n $stopping ]] && (( code != 0 )); then
  echo "bertkit: stopped before its end; job $SLURM_JOB_ID is queued again" >&2
  scontrol requeue "$SLURM_JOB_ID" || echo 'bertkit: Slurm does not queue it again; submit it with --resume' >&2
fi

exit "$code"
