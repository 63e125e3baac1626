"""The command `hairpin`, and `python -P -m hairpin`; without -P Python itself looks for some of its
own modules in the working folder first.

Loading the command line takes a tenth of a second. Ctrl-C in that time ends the process as it ends
any that has nothing to lose: at once, and without a word.
"""

import signal
import sys

_HANDLER = signal.getsignal(signal.SIGINT)
if _HANDLER is signal.default_int_handler:  # a shell's background job ignores it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from typing import NoReturn  # noqa: E402

from hairpin.cli.main import main as _main  # noqa: E402


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        signal.signal(signal.SIGINT, _HANDLER)
        _main()
    except KeyboardInterrupt:  # before or after the verb, which has its own way
        sys.exit(130)
    finally:
        # Nothing is at stake any more, and Python's own last steps would show a traceback.
        if _HANDLER is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
