"""`hairpin compare`, `ablate` and `find-lr`: arms, workers that train them, verdicts."""
