"""`hairpin doctor` and `hairpin verify`: checks of this machine, its devices, and a run."""
