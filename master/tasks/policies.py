"""Which policy decides who goes where: FleetPulse's own, or one that is installed beside it.

A policy is a pure function, ``placement.records.Policy``. An entry point of the group ``fleetpulse.placement`` names
it; ``--placement NAME`` chooses it.
"""

from importlib.metadata import EntryPoints

from fleetpulse.master.config import BEST_FIT
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.tasks.placement.records import Policy
from fleetpulse.master.tasks.scheduler import plan

POLICIES_GROUP = "fleetpulse.placement"


def policy_named(name: str, installed: EntryPoints) -> Policy:
    """The policy, loaded. Raises ``ConfigError`` when there is none, and with what went wrong when it was loaded."""
    if name == BEST_FIT:
        return plan
    found = installed.select(group=POLICIES_GROUP)
    entry = next(iter(found.select(name=name)), None)
    if entry is None:
        known = ", ".join(sorted({BEST_FIT, *found.names}))
        raise ConfigError(f"FLEETPULSE_PLACEMENT={name!r}: no such policy is installed; there is {known}")
    try:
        policy = entry.load()
    except Exception as error:
        raise ConfigError(
            f"FLEETPULSE_PLACEMENT={name!r}: {entry.value} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(policy):
        raise ConfigError(f"FLEETPULSE_PLACEMENT={name!r}: {entry.value} is no function")
    return policy  # type: ignore[no-any-return]  # what it returns is checked placement by placement
