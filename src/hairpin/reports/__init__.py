"""Summary, diagnostics, plots and comparisons; read records only."""
