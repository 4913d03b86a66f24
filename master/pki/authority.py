"""The CA: issues and revokes certificates, and keeps a record of both. Every change is durable when it returns."""

import contextlib
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetpulse.master.errors import (
    CertificateMismatch,
    ConfigError,
    ExpiredJoinToken,
    TooManyAttempts,
    UnknownJoinToken,
    UsedJoinToken,
    WorkerIdInUse,
    WorkerIdNotGranted,
)
from fleetpulse.master.pki import CERTIFICATE_NAME, ca_folder, certificates, workers_need_certificates
from fleetpulse.master.pki.admission import Admission, WorkerCertificate
from fleetpulse.master.pki.certificates import CertificateRequest, KeyPair
from fleetpulse.proto.join import new_join_token, parse_join_token
from fleetpulse.proto.private_files import locked, make_private_folder, write_private
from fleetpulse.proto.rules import WORKER_ID_RULE, is_worker_id

DEFAULT_LIFETIME_SECONDS = 30 * 86400.0
MAX_LIVE_CERTIFICATES = 16
"""Per worker, so that renewing has a limit. A join revokes the earlier ones."""

MAX_CERTIFICATES = 1000
"""Per worker that have not expired, live or revoked: they have to be remembered."""

MAX_EXPIRED = 100
"""Per worker that are remembered for a day after they expired: with a short life they are thousands."""

_KEY_NAME, _STATE_NAME, _LOCK_NAME = "key.pem", "state.json", "lock"
_VERSION = 1

Clock = Callable[[], float]


class TokenUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that joined with a token. The same key may ask again, because the first answer may have been lost."""

    worker_id: str
    key_fingerprint: str
    serial: str | None = None
    """Of the last certificate issued for this use; ``None`` in records of an earlier version."""

    is_revoked: bool = False
    """Whether the worker or one of its certificates was revoked since."""


class TokenRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored join token. ``secret_hash`` is the SHA-256, in hex, of a secret of 192 random bits."""

    secret_hash: str
    expires_at: float
    worker_id: str | None
    """The only id that it is for; ``PREFIX*`` for a prefix; ``None`` for any. The first may be in use."""

    max_uses: int
    uses: tuple[TokenUse, ...] = ()

    def is_for(self, worker_id: str) -> bool:
        """Returns whether the token covers this id."""
        wanted = self.worker_id
        if wanted is None or wanted == worker_id:
            return True
        return wanted.endswith("*") and worker_id.startswith(wanted[:-1])

    def used(self, use: TokenUse) -> "TokenRecord":
        """Returns the token with this use, in place of an earlier one of the same machine."""
        machine = use.worker_id, use.key_fingerprint
        others = (one for one in self.uses if (one.worker_id, one.key_fingerprint) != machine)
        return msgspec.structs.replace(self, uses=(*others, use))

    def revoking(self, worker_ids: set[str]) -> "TokenRecord":
        """Returns the token with the uses of these workers revoked."""
        uses = (
            msgspec.structs.replace(use, is_revoked=True) if use.worker_id in worker_ids else use for use in self.uses
        )
        return msgspec.structs.replace(self, uses=tuple(uses))


class IssuedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A worker's certificate. Times in Unix seconds."""

    worker_id: str
    serial: str
    issued_at: float
    expires_at: float
    revoked_at: float | None = None
    key_fingerprint: str | None = None
    """SHA-256 of the public key, in hex; ``None`` in records of an earlier version."""

    def is_live(self, now: float) -> bool:
        """Returns whether the certificate is accepted."""
        return self.revoked_at is None and self.expires_at > now


class _Versioned(msgspec.Struct):
    version: int


class CaState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All join tokens and certificates, as ``state.json`` stores them."""

    version: int
    tokens: tuple[TokenRecord, ...]
    issued: tuple[IssuedRecord, ...]

    def pruned(self, now: float) -> "CaState":
        """Returns the state without what expired a day ago, or expired before ``MAX_EXPIRED`` others of its worker."""
        since = now - 86400.0
        expired: Counter[str] = Counter()
        newest_first: list[IssuedRecord] = []
        for one in reversed(self.issued):
            if one.expires_at <= now:
                expired[one.worker_id] += 1
                if one.expires_at <= since or expired[one.worker_id] > MAX_EXPIRED:
                    continue
            newest_first.append(one)
        tokens = tuple(token for token in self.tokens if token.expires_at > since)
        return CaState(self.version, tokens, tuple(reversed(newest_first)))

    def live(self, worker_id: str, now: float) -> tuple[IssuedRecord, ...]:
        """Returns the accepted certificates of a worker."""
        return tuple(one for one in self.issued if one.worker_id == worker_id and one.is_live(now))

    def keys_of(self, serials: set[str]) -> set[str]:
        """Returns the fingerprints of the keys for which tokens gave these certificates."""
        return {use.key_fingerprint for token in self.tokens for use in token.uses if use.serial in serials}

    def is_in_force(self, use: TokenUse, now: float) -> bool:
        """Returns whether the certificate issued for this use is live and is the worker's newest."""
        newest = next((one for one in reversed(self.issued) if one.worker_id == use.worker_id), None)
        return newest is not None and newest.serial == use.serial and newest.is_live(now) and not use.is_revoked

    def using(self, token: TokenRecord, use: TokenUse) -> "CaState":
        """Returns the state with one more use of the token."""
        tokens = tuple(one.used(use) if one is token else one for one in self.tokens)
        return msgspec.structs.replace(self, tokens=tokens)

    def revoking(self, serials: set[str], now: float) -> "CaState":
        """Returns the state with these certificates revoked."""
        issued = (msgspec.structs.replace(one, revoked_at=now) if one.serial in serials else one for one in self.issued)
        return msgspec.structs.replace(self, issued=tuple(issued))


def create(data_dir: Path, clock: Clock = time.time) -> None:
    """Makes the CA of this data directory. Raises ``ConfigError`` if there is one, or if it cannot be written."""
    folder = ca_folder(data_dir)
    try:
        make_private_folder(folder)
        with locked(folder / _LOCK_NAME):
            if (folder / CERTIFICATE_NAME).exists():
                raise ConfigError(f"there is a CA in {folder} already")
            pair = certificates.new_ca(clock())
            write_private(folder / _KEY_NAME, certificates.key_pem(pair.key))
            write_private(folder / _STATE_NAME, msgspec.json.encode(CaState(_VERSION, (), ())))
            # Last: its presence says that the CA is complete.
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
        self._state_path = self._folder / _STATE_NAME
        self._signature: tuple[int, int, int] | None = None
        self._token_hashes: frozenset[str] = frozenset()
        self.admission = Admission(clock, self.refresh)
        """The certificates accepted now, as of the last ``refresh``."""

        try:
            self._ca = _read_pair(self._folder)
            self.refresh()
        except OSError as error:
            raise ConfigError(f"the CA in {self._folder} cannot be read: {error.strerror or error}") from error

    @property
    def certificate_pem(self) -> bytes:
        """The CA's own certificate."""
        return certificates.pem(self._ca.certificate)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the CA's certificate in DER, as ``openssl x509 -fingerprint -sha256`` shows it."""
        return self._ca.certificate.fingerprint(hashes.SHA256())

    def refresh(self) -> bool:
        """Reads what is revoked if the state file has changed, and returns whether it has. Raises ``OSError``."""
        status = self._state_path.stat()  # a replaced file is another file
        signature = status.st_ino, status.st_mtime_ns, status.st_size
        if signature == self._signature:
            return False
        state = self._read()
        self._signature = signature
        self._token_hashes = frozenset(token.secret_hash for token in state.tokens)
        revoked = (one.serial for one in state.issued if one.revoked_at is not None)
        self.admission.replace(revoked, (one.serial for one in state.issued))
        return True

    def server_pair(self, names: Sequence[str]) -> KeyPair:
        """Returns a new key and certificate for a master with these host names."""
        return certificates.server_pair(self._ca, names, self._clock(), self._lifetime_seconds)

    def new_join_token(self, lifetime_seconds: float, worker_id: str | None = None, uses: int = 1) -> str:
        """Returns a token that lets ``uses`` machines join. Only its hash is stored. Raises ``ConfigError``."""
        if worker_id is not None and not (worker_id == "*" or is_worker_id(worker_id.removesuffix("*"))):
            raise ConfigError(f"{worker_id!r} is no worker id: one has {WORKER_ID_RULE}; PREFIX* is for several")
        token = new_join_token(self.fingerprint)
        record = TokenRecord(_hashed(token.secret), self._clock() + lifetime_seconds, worker_id, uses)
        with self._changing() as change:
            change.state = msgspec.structs.replace(change.state, tokens=(*change.state.tokens, record))
        return token.text()

    def knows(self, token: str) -> bool:
        """Returns whether a join token is one of this CA, good or not. Raises ``OSError``."""
        self.refresh()
        try:
            return _hashed(parse_join_token(token).secret) in self._token_hashes
        except ValueError:
            return False

    def join(self, token: str, csr: bytes) -> list[bytes]:
        """Returns the chain for a machine that has a token, in DER. Raises ``JoinRefused`` or ``InvalidMessage``."""
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
            # The worker has lost its key, or is another machine: its earlier certificates are revoked.
            before = {one.serial for one in state.live(request.worker_id, now)}
            change.state = state.revoking(before, now)
            chain = self._issue(change, request, now)
            use = TokenUse(request.worker_id, request.key_fingerprint, change.state.issued[-1].serial)
            change.state = change.state.using(record, use)
            return chain

    def renew(self, holder: WorkerCertificate | None, csr: bytes) -> list[bytes]:
        """Returns a new chain for the holder of a valid certificate. Raises ``JoinRefused``, ``CertificateRefused``."""
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
        """Returns every remembered certificate of a worker. Raises ``OSError``, ``ConfigError``."""
        return sorted(self._read().issued, key=lambda one: (one.worker_id, one.issued_at))

    def revoke(self, target: str) -> list[IssuedRecord]:
        """Revokes one certificate by its serial, or all of a worker by its id; returns those revoked now.

        A worker id also removes the join tokens for that worker alone, and blocks the tokens that it has used. Raises
        ``ConfigError`` if nothing has this name.
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
            state = msgspec.structs.replace(state, tokens=tokens)
            change.state = state.revoking({one.serial for one in revoked}, now)
            return revoked

    def _issue(self, change: "_Change", request: CertificateRequest, now: float) -> list[bytes]:
        issued = change.state.issued
        if sum(one.worker_id == request.worker_id and one.expires_at > now for one in issued) >= MAX_CERTIFICATES:
            raise TooManyAttempts(f"worker {request.worker_id} was given too many certificates")
        certificate = certificates.worker_certificate(self._ca, request, now, self._lifetime_seconds)
        given = certificates.described(certificate, request.worker_id)
        record = IssuedRecord(
            given.worker_id, given.serial, now, given.not_after, key_fingerprint=request.key_fingerprint
        )
        change.state = msgspec.structs.replace(change.state, issued=(*issued, record))
        return [one.public_bytes(serialization.Encoding.DER) for one in (certificate, self._ca.certificate)]

    @contextlib.contextmanager
    def _changing(self) -> "Iterator[_Change]":
        """Yields the state under the lock, and writes it back unless the block raises. Raises ``OSError``."""
        with locked(self._folder / _LOCK_NAME):
            change = _Change(self._read())
            yield change
            write_private(self._state_path, msgspec.json.encode(change.state.pruned(self._clock())))

    def _read(self) -> CaState:
        """Raises ``ConfigError`` if the file is damaged, ``OSError`` if it cannot be read."""
        path = self._state_path
        data = path.read_bytes()
        try:
            if msgspec.json.decode(data, type=_Versioned).version != _VERSION:
                raise ConfigError(f"{path} is of another version of FleetPulse")
            return msgspec.json.decode(data, type=CaState)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} is damaged: {error}") from error


class _Change:
    def __init__(self, state: CaState) -> None:
        self.state = state


def _hashed(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()  # the secret is random, so a fast hash is enough


def _found(tokens: Sequence[TokenRecord], text: str, fingerprint: bytes) -> TokenRecord:
    try:
        token = parse_join_token(text)
    except ValueError:
        raise UnknownJoinToken("this master does not know the join token") from None
    digest = _hashed(token.secret)
    for record in tokens:
        if hmac.compare_digest(record.secret_hash, digest) and token.fingerprint == fingerprint:
            return record
    raise UnknownJoinToken("this master does not know the join token")


def _check_use(state: CaState, token: TokenRecord, request: CertificateRequest, now: float) -> None:
    """Raises ``JoinRefused`` unless the token has a use left, or this machine asks again because an answer was lost."""
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
    # The same key is the same machine: a second use would revoke the machine that replaced it.
    if again is not None or len(token.uses) >= token.max_uses:
        raise UsedJoinToken("the join token has been used; make another with `fleetpulse ca join-token`")
    if token.worker_id != worker_id and (live := state.live(worker_id, now)):
        keys = {one.key_fingerprint for one in live} | state.keys_of({one.serial for one in live})
        if request.key_fingerprint not in keys:
            raise WorkerIdInUse(
                f"worker {worker_id} has a certificate: revoke it, or make a join token with --worker-id {worker_id}"
            )


def _read_pair(folder: Path) -> KeyPair:
    try:
        key = serialization.load_pem_private_key((folder / _KEY_NAME).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE_NAME).read_bytes())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the CA in {folder} is damaged: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"the CA in {folder} is damaged: the key is not the certificate's")
    return KeyPair(key, certificate)
