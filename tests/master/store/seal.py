"""What seals in tests, in every process alike."""

from fleetpulse.master.store.sealing import Seal

KEY = "A" * 43 + "="
SEAL = Seal([KEY])
