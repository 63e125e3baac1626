"""`hairpin plan`: the cost of a run or a cluster before any training."""
