#!/bin/bash
# A list of images labelled by 64 tasks: sbatch deploy/scale/slurm-predict.sh
#SBATCH --job-name=predict
#SBATCH --array=0-63
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=predict-%a.log

# A task that is started again continues after the last entry of its manifest.
exec srun structtoken predict model.safetensors --list images.txt --shard auto --out masks --threads "$SLURM_CPUS_PER_TASK"
