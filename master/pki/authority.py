"""The CA: gives and takes back certificates, and remembers what it gave. Every change is durable when it returns."""

import hmac
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetpulse.master.errors import (
    CertificateMismatch,
    ConfigError,
    ExpiredJoinToken,
    TooManyAttempts,
    UnknownJoinToken,
    UsedJoinToken,
    WorkerIdNotGranted,
)
from fleetpulse.master.pki import certificates, workers_need_certificates
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.pki.certificates import KeyPair, Request
from fleetpulse.master.pki.files import CERTIFICATE_NAME, KEY_NAME, LOCK_NAME, ca_folder
from fleetpulse.master.pki.state import IssuedRecord, State, StateFile, TokenRecord, TokenUse, hashed
from fleetpulse.master.private_files import locked, make_private_folder, write_private
from fleetpulse.proto.join import new_join_token, parse_join_token
from fleetpulse.proto.rules import WORKER_ID_RULE, is_worker_id

DEFAULT_LIFETIME_SECONDS = 30 * 86400.0
MAX_LIVE_CERTIFICATES = 16
"""Of one worker: who renews without end gets no more. A join takes back those before it."""

MAX_CERTIFICATES = 1000
"""Of one worker that have not expired, live or revoked: those have to be remembered."""

Clock = Callable[[], float]


def create(data_dir: Path, clock: Clock = time.time) -> None:
    """Make the CA of this data directory. Raises ``ConfigError`` if there is one, or if it cannot be written."""
    folder = ca_folder(data_dir)
    try:
        make_private_folder(folder)
        with locked(folder / LOCK_NAME):
            if (folder / CERTIFICATE_NAME).exists():
                raise ConfigError(f"there is a CA in {folder} already")
            pair = certificates.new_ca(clock())
            write_private(folder / KEY_NAME, certificates.key_pem(pair.key))
            StateFile(folder).write(State())
            # Last: a CA is there when its certificate is.
            write_private(folder / CERTIFICATE_NAME, certificates.pem(pair.certificate))
    except OSError as error:
        raise ConfigError(f"no CA can be made in {folder}: {error.strerror or error}") from error


class Authority:
    """The CA of a data directory. Safe for several threads and processes; every method may wait for a disk."""

    def __init__(
        self, data_dir: Path, lifetime_seconds: float = DEFAULT_LIFETIME_SECONDS, clock: Clock = time.time
    ) -> None:
        """Raises ``ConfigError`` if there is no CA, or if it cannot be read."""
        self._folder = ca_folder(data_dir)
        if not workers_need_certificates(data_dir):
            raise ConfigError(f"there is no CA in {self._folder}: make one with `fleetpulse ca init`")
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock
        self._file = StateFile(self._folder)
        self._signature: tuple[int, int, int] | None = None
        self.admission = Admission(clock)
        """Who may come in now, as of the last ``refresh``."""
        try:
            self._ca = _read_pair(self._folder)
            self.refresh()
        except OSError as error:
            raise ConfigError(f"the CA in {self._folder} cannot be read: {error.strerror or error}") from error

    @property
    def certificate_pem(self) -> bytes:
        """The CA's own."""
        return certificates.pem(self._ca.certificate)

    @property
    def fingerprint(self) -> bytes:
        """Of the CA's certificate."""
        return certificates.fingerprint(self._ca.certificate)

    def refresh(self) -> bool:
        """Look whether somebody changed what is revoked: one ``stat``, and a read if so. Raises ``OSError``."""
        signature = self._file.signature()
        if signature == self._signature:
            return False
        state = self._file.read()
        self._signature = signature
        self.admission.replace(one.serial for one in state.issued if one.revoked_at is not None)
        return True

    def server_pair(self, names: Sequence[str]) -> KeyPair:
        """A new key and certificate for a master of these names."""
        return certificates.server_pair(self._ca, names, self._clock(), self._lifetime_seconds)

    def new_join_token(self, lifetime_seconds: float, worker_id: str | None = None, uses: int = 1) -> str:
        """A token that lets ``uses`` machines in. Only its hash is kept. Raises ``ConfigError``."""
        if worker_id is not None and not (worker_id == "*" or is_worker_id(worker_id.removesuffix("*"))):
            raise ConfigError(f"{worker_id!r} is no worker id: one has {WORKER_ID_RULE}; PREFIX* is for several")
        token = new_join_token(self.fingerprint)
        record = TokenRecord(hashed(token.secret), self._clock() + lifetime_seconds, worker_id, uses)
        with self._changing() as change:
            change.state = change.state._replace(tokens=(*change.state.tokens, record))
        return token.text()

    def join(self, token: str, csr: bytes) -> list[bytes]:
        """The chain for a machine that has a token, in DER. Raises ``JoinRefused`` or ``InvalidMessage``."""
        request = certificates.request_from(csr)
        now = self._clock()
        with self._changing() as change:
            state = change.state
            record = _found(state.tokens, token, self.fingerprint)
            if record.expires_at <= now:
                raise ExpiredJoinToken("the join token has expired; make another with `fleetpulse ca join-token`")
            if not record.is_for(request.worker_id):
                raise WorkerIdNotGranted(f"the join token is not for the worker id {request.worker_id}")
            _check_use(state, record, request, now)
            # Who joins anew has lost its key, or is another machine: what was given before counts no more.
            before = {one.serial for one in state.live(request.worker_id, now)}
            change.state = state.revoking(before, now)
            chain = self._issue(change, request, now)
            use = TokenUse(request.worker_id, request.key_fingerprint, change.state.issued[-1].serial)
            change.state = change.state.using(record, use)
            return chain

    def renew(self, holder: WorkerCertificate | None, csr: bytes) -> list[bytes]:
        """A new chain for the holder of a good certificate. Raises ``JoinRefused``, ``CertificateRefused`` and such."""
        request = certificates.request_from(csr)
        now = self._clock()
        with self._changing() as change:
            self.admission.check(holder, request.worker_id)
            live = change.state.live(request.worker_id, now)
            if holder is None or holder.serial not in {one.serial for one in live}:
                raise CertificateMismatch("this certificate was not given by this CA, or was revoked")
            if len(live) >= MAX_LIVE_CERTIFICATES:
                raise TooManyAttempts(f"worker {request.worker_id} has {len(live)} certificates that are still good")
            return self._issue(change, request, now)

    def issued(self) -> list[IssuedRecord]:
        """Every certificate of a worker that is remembered. Raises ``OSError``, ``ConfigError``."""
        return sorted(self._file.read().issued, key=lambda one: (one.worker_id, one.issued_at))

    def revoke(self, target: str) -> list[IssuedRecord]:
        """Revoke one certificate by its serial, or all of a worker by its id; those that were not revoked before.

        Join tokens for the worker alone are taken back with its id, and those that the worker has used give it nothing
        more. Raises ``ConfigError`` if nothing has this name.
        """
        now = self._clock()
        with self._changing() as change:
            state = change.state
            found = [one for one in state.issued if target in (one.worker_id, one.serial)]
            worker_ids = {target, *(one.worker_id for one in found)}
            tokens = tuple(one.revoking(worker_ids) for one in state.tokens if one.worker_id != target)
            if not found and tokens == state.tokens:
                raise ConfigError(f"nothing was given to {target!r}: `fleetpulse ca list` shows worker ids and serials")
            revoked = [one for one in found if one.revoked_at is None]
            change.state = state._replace(tokens=tokens).revoking({one.serial for one in revoked}, now)
            return revoked

    def _issue(self, change: "_Change", request: Request, now: float) -> list[bytes]:
        issued = change.state.issued
        if sum(one.worker_id == request.worker_id and one.expires_at > now for one in issued) >= MAX_CERTIFICATES:
            raise TooManyAttempts(f"worker {request.worker_id} was given too many certificates")
        certificate = certificates.worker_certificate(self._ca, request, now, self._lifetime_seconds)
        given = certificates.described(certificate, request.worker_id)
        record = IssuedRecord(given.worker_id, given.serial, now, given.not_after)
        change.state = change.state._replace(issued=(*issued, record))
        return [certificates.der(certificate), certificates.der(self._ca.certificate)]

    def _changing(self) -> "_Change":
        return _Change(self._folder, self._file, self._clock)


class _Change:
    """One change of the state, under the lock; written when the block ends well. Raises ``OSError``."""

    def __init__(self, folder: Path, file: StateFile, clock: Clock) -> None:
        self._lock = locked(folder / LOCK_NAME)
        self._file = file
        self._clock = clock
        self.state = State()

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            self.state = self._file.read()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._file.write(self.state.pruned(self._clock()))
        finally:
            self._lock.__exit__(None, None, None)


def _found(tokens: Sequence[TokenRecord], text: str, fingerprint: bytes) -> TokenRecord:
    try:
        token = parse_join_token(text)
    except ValueError:
        raise UnknownJoinToken("this master does not know the join token") from None
    digest = hashed(token.secret)
    for record in tokens:
        if hmac.compare_digest(record.secret_hash, digest) and token.fingerprint == fingerprint:
            return record
    raise UnknownJoinToken("this master does not know the join token")


def _check_use(state: State, token: TokenRecord, request: Request, now: float) -> None:
    """Raise ``JoinRefused`` unless the token is good for this machine: once more, or again if its answer was lost."""
    worker_id = request.worker_id
    former = [one for one in token.uses if one.worker_id == worker_id]
    if any(one.is_revoked for one in former):
        raise UsedJoinToken(
            f"the join token has been used by worker {worker_id}, which was revoked since; "
            "make another with `fleetpulse ca join-token`"
        )
    again = next((one for one in former if one.key_fingerprint == request.key_fingerprint), None)
    if again is not None and state.is_in_force(again, now):
        return
    # The same key is the same machine: it gets no second use, with which it would end who came in its place.
    if again is not None or len(token.uses) >= token.max_uses:
        raise UsedJoinToken("the join token has been used; make another with `fleetpulse ca join-token`")
    if token.worker_id is None and state.live(worker_id, now):
        raise WorkerIdNotGranted(
            f"worker {worker_id} has a certificate: revoke it, or make a join token with --worker-id {worker_id}"
        )


def _read_pair(folder: Path) -> KeyPair:
    try:
        key = serialization.load_pem_private_key((folder / KEY_NAME).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE_NAME).read_bytes())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the CA in {folder} is damaged: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"the CA in {folder} is damaged: the key is not the certificate's")
    return KeyPair(key, certificate)
