"""Measurements of this machine and text, and the config filled in from them."""
