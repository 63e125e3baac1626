"""`hairpin book`: runs the appendix and writes a page about it."""
