"""Export to transformers folders and GGUF files, and import of transformers folders."""
