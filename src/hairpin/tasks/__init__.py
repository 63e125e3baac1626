"""The tasks that a run can train: pretraining, classification, instructions; inference after it."""
