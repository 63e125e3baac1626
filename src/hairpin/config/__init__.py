"""Frozen, validated tables of every setting; recipes; TOML; the reference in docs/config.md."""
