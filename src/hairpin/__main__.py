"""`python -P -m hairpin`, the same as `hairpin`; without -P Python itself looks for some of its own
modules in the working folder first.
"""

from hairpin.cli.main import main

main()
