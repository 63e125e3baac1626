"""A run in a terminal or a notebook: bar, lines, events."""
