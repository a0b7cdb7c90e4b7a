#!/bin/bash
# An evaluation by 8 tasks: sbatch deploy/scale/slurm-eval.sh
# Some of them again:       sbatch --array=2,5 deploy/scale/slurm-eval.sh
# and afterwards, anywhere: structtoken eval merge eval-*.json
#SBATCH --job-name=eval
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --output=eval-%a.log

# As many as tasks above, also where only some are started.
SHARDS=${SHARDS:-8}
# srun does not take over --cpus-per-task by itself.
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" structtoken eval model.safetensors --shard auto --shards "$SHARDS" \
  --out "eval-{shard}.json" --threads "$SLURM_CPUS_PER_TASK"
