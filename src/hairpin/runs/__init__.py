"""The run folder: its config, record of events, lock, and the display protocol."""
