"""The training loop: state, step, evaluation, checkpoints, incidents; the same for every task."""
