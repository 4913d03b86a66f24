"""What seals in tests, in every process alike."""

from fleetpulse.master.store.sealing import Encryptor

KEY = "A" * 43 + "="
SEAL = Encryptor([KEY])
