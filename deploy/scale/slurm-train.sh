#!/bin/bash
# One run by 8 processes on 4 machines: sbatch deploy/scale/slurm-train.sh
# The folder of the run and the data lie on a file system that all machines share. The program is built with --features mpi.
#SBATCH --job-name=train
#SBATCH --nodes=4
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120           # two minutes to save before time is up
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=train-%j.log

# A job that was put back into the queue continues from its last checkpoint.
if [ -d runs/street/checkpoints ]; then
  exec srun --mpi=pmix --cpus-per-task="$SLURM_CPUS_PER_TASK" structtoken train --mpi --resume --out runs/street --threads "$SLURM_CPUS_PER_TASK"
fi
exec srun --mpi=pmix --cpus-per-task="$SLURM_CPUS_PER_TASK" structtoken train recipe.toml --mpi --out runs/street \
  --set train.batch_size=16 --set train.accumulate=16 --threads "$SLURM_CPUS_PER_TASK"
