"""Clipping, the guard against bad updates, the loss scale, AdamW and Muon."""
