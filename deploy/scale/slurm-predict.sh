#!/bin/bash
# A list of images labelled by 64 tasks: sbatch deploy/scale/slurm-predict.sh
# Some of them again:                    sbatch --array=5,17 deploy/scale/slurm-predict.sh
# What failed (exit code 3) again:       ONLY_FAILED=--only-failed sbatch deploy/scale/slurm-predict.sh
#SBATCH --job-name=predict
#SBATCH --array=0-63
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=predict-%a.log

# As many as tasks above, also where only some are started.
SHARDS=${SHARDS:-64}
# A task that is started again continues after the last entry of its manifest. srun does not take over --cpus-per-task by itself.
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" structtoken predict model.safetensors --list images.txt --shard auto --shards "$SHARDS" \
  --out masks --threads "$SLURM_CPUS_PER_TASK" $ONLY_FAILED
