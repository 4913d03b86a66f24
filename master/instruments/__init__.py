"""What the master counts of itself.

The instruments live below the services and the adapters, so that neither needs to know who exposes them.
"""

from fleetpulse.master.instruments.hub import HubCounter, HubHistogram
from fleetpulse.master.instruments.master import Instruments

__all__ = ["HubCounter", "HubHistogram", "Instruments"]
