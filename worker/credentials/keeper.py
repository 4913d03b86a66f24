"""The certificate of a worker that runs: shown with every connection, renewed at two thirds of its life."""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from cryptography import x509

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.join import JoinToken
from fleetpulse.worker.credentials import BUNDLE_NAME, CredentialsError, JoinEndpoint
from fleetpulse.worker.credentials.bundle import (
    Bundle,
    bundle_from,
    new_key,
    read_bundle,
    signing_request,
    write_bundle,
)
from fleetpulse.worker.credentials.joining import join_when_possible
from fleetpulse.worker.files import write_private

_LOGGER = logging.getLogger(__name__)

_JOINED_WITH_NAME = "tls.joined"

_RENEW_AT = 2 / 3
_SPREAD = 0.05
"""Of its life, by which each worker waits less, so that a fleet that joined at once does not renew at once."""

_AGAIN_AT = 0.02
"""Of its life between two tries to renew it."""

_ANSWER_SECONDS = 15.0


Renew = Callable[..., Awaitable[pb.CertificateChain]]
"""The RPC: ``FleetStub(channel).Renew``."""


class CertificateRenewer:
    """Keeps the bundle in a file and in memory. All methods but ``__init__`` belong to one asyncio loop."""

    def __init__(
        self, folder: Path, bundle: Bundle, rng: random.Random | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = folder / BUNDLE_NAME
        self._bundle = bundle
        self._rng = rng or random.Random()  # nosec B311 # spreads renewals in time
        self._clock = clock

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a new connection."""
        bundle = self._bundle
        return grpc.ssl_channel_credentials(bundle.ca_pem, bundle.key_pem, bundle.certificate_pem)

    def health_error(self) -> str | None:
        """Why no master will take this certificate, as far as the worker can know."""
        if self._bundle.has_expired(self._clock()):
            return f"this worker's certificate expired on {self._bundle.expiry()}: it must join again"
        return None

    async def renew_when_due(self, renew: Renew) -> None:
        """Return when there is a newer certificate, for which a new connection is needed."""
        bundle = self._bundle
        life = bundle.not_after - bundle.not_before
        due = bundle.not_before + life * (_RENEW_AT - _SPREAD * self._rng.random())
        await self._sleep_until(due)
        while True:
            try:
                await self._renew(renew)
            except (grpc.aio.AioRpcError, CredentialsError) as error:
                why = (error.details() or error.code().name) if isinstance(error, grpc.aio.AioRpcError) else error
                _LOGGER.warning("worker %s: its certificate is not renewed yet: %s", bundle.worker_id, why)
                await self._sleep_until(self._clock() + max(life * _AGAIN_AT, 1.0))
            else:
                _LOGGER.info("worker %s: has a new certificate, until %s", bundle.worker_id, self._bundle.expiry())
                return

    async def _renew(self, renew: Renew) -> None:
        worker_id = self._bundle.worker_id
        key = await asyncio.to_thread(new_key)
        csr = await asyncio.to_thread(signing_request, key, worker_id)
        answer = await renew(pb.RenewRequest(csr=csr), timeout=_ANSWER_SECONDS)

        def keep() -> None:
            ca = x509.load_pem_x509_certificate(self._bundle.ca_pem)
            bundle = bundle_from(key, list(answer.certificates), ca)
            write_bundle(self._path, bundle)
            self._bundle = bundle

        await asyncio.to_thread(keep)

    async def _sleep_until(self, due: float) -> None:
        # In pieces: the wall clock may be set.
        while (left := due - self._clock()) > 0.0:  # noqa: ASYNC110 - it is a clock that is waited for
            await asyncio.sleep(min(left, 60.0))


def credentials_for(
    worker_id: str,
    folder: Path,
    token: JoinToken | None,
    door: JoinEndpoint | None,
    now: float,
    sleep: Callable[[float], None],
) -> Bundle | None:
    """What this worker shows: what it has, or what it gets for a token that it has not used yet. ``None``: no TLS.

    Blocks until a master answers, if it has to join. Raises ``CredentialsError``.
    """
    path = folder / BUNDLE_NAME
    if token is None or door is None:
        bundle = read_bundle(path)
        if bundle is not None and (why := _unusable(bundle, worker_id, now)) is not None:
            raise CredentialsError(f"{why}; join again with a new token, or remove {path}")
        return bundle
    try:
        kept = read_bundle(path)
    except CredentialsError as error:
        _LOGGER.warning("%s", error)
        kept = None
    is_usable = (
        kept is not None and _unusable(kept, worker_id, now) is None and kept.ca_fingerprint == token.fingerprint
    )
    if is_usable and _was_used(folder, token):
        return kept
    try:
        bundle = join_when_possible(door, token, worker_id, sleep)
    except CredentialsError as error:
        if not is_usable:
            raise
        _LOGGER.warning("worker %s: %s; it goes on with the certificate that it has", worker_id, error)
        return kept
    write_bundle(path, bundle)
    _note_use(folder, token)
    _LOGGER.info("worker %s: has joined at %s, with a certificate until %s", worker_id, door, bundle.expiry())
    return bundle


def _unusable(bundle: Bundle, worker_id: str, now: float) -> str | None:
    if bundle.worker_id != worker_id:
        return f"the certificate of this worker is for the worker id {bundle.worker_id}, not for {worker_id}"
    if bundle.has_expired(now):
        return f"the certificate of this worker expired on {bundle.expiry()}"
    return None


def _digest(token: JoinToken) -> bytes:
    return hashlib.sha256(token.secret).hexdigest().encode() + b"\n"


def _was_used(folder: Path, token: JoinToken) -> bool:
    try:
        return (folder / _JOINED_WITH_NAME).read_bytes() == _digest(token)
    except OSError:
        return False


def _note_use(folder: Path, token: JoinToken) -> None:
    try:
        write_private(folder / _JOINED_WITH_NAME, _digest(token))
    except OSError as error:
        _LOGGER.warning("that the join token was used is not kept: %s", error.strerror or error)
