"""Hand-written forward and backward passes, each next to its plain form."""
