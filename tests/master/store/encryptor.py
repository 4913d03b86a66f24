"""The key of the tests, the same in every process."""

from fleetpulse.master.store.encryption import Encryptor

KEY = "A" * 43 + "="
ENCRYPTOR = Encryptor([KEY])
