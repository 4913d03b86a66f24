"""The ``fleetpulse`` console script. It imports nothing before it hears Ctrl-C."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Load the command line and run it."""
    try:
        from fleetpulse.master.cli import main as run  # noqa: PLC0415 - see above

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
