#!/bin/bash
# An evaluation by 8 tasks: sbatch deploy/scale/slurm-eval.sh
# and afterwards, anywhere: structtoken eval merge eval-*.json
#SBATCH --job-name=eval
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --output=eval-%a.log

exec srun structtoken eval model.safetensors --shard auto --out "eval-{shard}.json" --threads "$SLURM_CPUS_PER_TASK"
