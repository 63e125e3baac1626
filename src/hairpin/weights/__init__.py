"""Trained weights in and out: runs, GPT-2, the book, transformers; names and config both ways."""
