"""The processes that train together, and how they exchange tensors and values."""
