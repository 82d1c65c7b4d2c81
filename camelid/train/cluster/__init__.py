"""Training on many machines: SLURM scripts, known clusters, the launch environment, preemption."""
