"""What holds for every test."""

from hypothesis import settings

# A busy machine is no failure. The parent keeps what hypothesis chose for this place: in CI, the same examples always.
settings.register_profile("fleetpulse", parent=settings(), deadline=None)
settings.load_profile("fleetpulse")

pytest_plugins = ["tests.browser", "tests.docker_engine", "tests.postgres"]
