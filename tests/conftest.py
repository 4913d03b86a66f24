"""What holds for every test."""

import signal

from hypothesis import settings

# A shell has ignore Ctrl-C what it starts in the background, and so would the processes in which tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure. The parent keeps what hypothesis chose for this place: in CI, the same examples always.
settings.register_profile("fleetpulse", parent=settings(), deadline=None)
settings.load_profile("fleetpulse")

pytest_plugins = ["tests.browser", "tests.docker_engine", "tests.postgres"]
