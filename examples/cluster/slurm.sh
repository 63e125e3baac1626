#!/usr/bin/env bash
# A Slurm job that trains on all of its nodes, saves when its time is up or another job takes its
# place, and goes on when Slurm starts it again. Change the lines with <-, then
#
#   sbatch slurm.sh TEXT RUN [hairpin's own options…]
#
# TEXT and RUN are on a file system that all nodes see.
#SBATCH --job-name=hairpin
#SBATCH --nodes=2                 # <-
#SBATCH --ntasks-per-node=1       # torchrun, which starts a process for each GPU
#SBATCH --cpus-per-task=2         # <-
#SBATCH --time=04:00:00           # <-
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120       # seconds before the end, to save in
set -uo pipefail
text=$1 run=$2
shift 2
processes_per_node=${PROCESSES_PER_NODE:-1}   # <- GPUs in a node
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit=0 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$processes_per_node" \
  --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint "$first_node:29400" \
  --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  --no-python hairpin train "$text" --out "$run" --or-resume "$@" &
step=$!

save_and_requeue() {
  scancel --signal=TERM "$SLURM_JOB_ID"   # to torchrun, not to this script: all save, and end
  wait "$step"
  scontrol requeue "$SLURM_JOB_ID"
}
trap save_and_requeue TERM
wait "$step"
