"""The networks, their head and loss, and text generation."""
