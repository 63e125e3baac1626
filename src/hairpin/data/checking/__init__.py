"""A look at a corpus: copies, leaks between training and validation, odd bytes."""
