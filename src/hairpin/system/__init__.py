"""Files written whole or not at all, output streams, shell quoting, process-wide settings."""
