"""Tables: rows of CSV, TSV, JSON, Parquet and Arrow files and of Python, as texts or as records."""
