"""What seals in tests, in every process alike."""

from fleetpulse.master.store.encryption import Encryptor

KEY = "A" * 43 + "="
ENCRYPTOR = Encryptor([KEY])
