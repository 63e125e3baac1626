"""Pages about runs: one HTML file that needs only a browser."""
