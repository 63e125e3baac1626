"""`python -m hairpin`, the same as `hairpin`."""

from hairpin.cli.main import main

main()
