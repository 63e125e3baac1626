"""Parameters, FLOPs, memory, disk and time of a run; choices for what a config leaves open."""
