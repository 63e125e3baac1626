"""The command line: a thin command for each function of the Python API."""
