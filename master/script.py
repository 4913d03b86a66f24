"""The ``fleetpulse`` console script. It imports nothing before it can handle Ctrl-C."""

import sys

_INTERRUPTED = 130  # as ExitCode.INTERRUPTED, which is not loaded yet


def main() -> None:
    """Loads the command line and runs it."""
    try:
        from fleetpulse.master.cli import main as run  # noqa: PLC0415 - see above

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
