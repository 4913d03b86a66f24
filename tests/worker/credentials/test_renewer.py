"""worker.credentials: the stored bundle, joining and renewing"""

import asyncio
import random
import time
from pathlib import Path

import grpc
import pytest

from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.pki.authority import Authority
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.join import new_join_token
from fleetpulse.worker.credentials import CredentialsError, JoinEndpoint
from fleetpulse.worker.credentials.bundle import read_bundle, write_bundle
from fleetpulse.worker.credentials.renewer import CertificateRenewer, load_or_join
from tests.certificates import issued_bundle, new_authority

UNREACHABLE = JoinEndpoint("127.0.0.1", 1)


def fail_on_sleep(_seconds: float) -> None:
    raise AssertionError("no wait is expected")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of a master with a CA."""
    new_authority(tmp_path / "master")
    return tmp_path / "master"


def test_stored_bundle_is_read_back_and_its_repr_shows_no_key(data_dir: Path, tmp_path: Path) -> None:
    bundle = issued_bundle(data_dir, "rack-7")
    write_bundle(tmp_path / "tls.pem", bundle)
    assert read_bundle(tmp_path / "tls.pem") == bundle
    assert (tmp_path / "tls.pem").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(bundle)


@pytest.mark.parametrize("damage", ["cut", "empty", "key of another", "noise"])
def test_damaged_bundle_raises_with_the_remedy(data_dir: Path, tmp_path: Path, damage: str) -> None:
    path, bundle = tmp_path / "tls.pem", issued_bundle(data_dir, "rack-7")
    write_bundle(path, bundle)
    if damage == "key of another":
        write_bundle(path, bundle._replace(key_pem=issued_bundle(data_dir, "rack-8").key_pem))
    else:
        path.write_bytes({"cut": path.read_bytes()[:600], "empty": b"", "noise": bytes(100)}[damage])
    with pytest.raises(CredentialsError, match=r"damaged; remove it and join again$"):
        load_or_join("rack-7", tmp_path, None, UNREACHABLE, time.time(), fail_on_sleep)


def test_without_bundle_and_token_there_is_no_tls(tmp_path: Path) -> None:
    assert load_or_join("rack-7", tmp_path, None, UNREACHABLE, time.time(), fail_on_sleep) is None


def test_certificate_of_another_worker_id_is_refused(data_dir: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "tls.pem", issued_bundle(data_dir, "rack-7"))
    with pytest.raises(CredentialsError, match="is for the worker id rack-7, not for rack-8"):
        load_or_join("rack-8", tmp_path, None, UNREACHABLE, time.time(), fail_on_sleep)


def test_expired_certificate_is_refused_with_the_remedy(data_dir: Path, tmp_path: Path) -> None:
    bundle = issued_bundle(data_dir, "rack-7")
    write_bundle(tmp_path / "tls.pem", bundle)
    assert load_or_join("rack-7", tmp_path, None, UNREACHABLE, bundle.not_after - 1.0, fail_on_sleep) == bundle
    with pytest.raises(CredentialsError, match=r"expired on .* UTC; join again with a new token"):
        load_or_join("rack-7", tmp_path, None, UNREACHABLE, bundle.not_after, fail_on_sleep)


def test_joining_waits_for_an_unreachable_master(tmp_path: Path) -> None:
    waited: list[float] = []

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise Enough

    with pytest.raises(Enough):
        load_or_join("rack-7", tmp_path, new_join_token(bytes(32)), UNREACHABLE, time.time(), sleep)


def test_certificate_is_renewed_when_due_and_stored(data_dir: Path, tmp_path: Path) -> None:
    bundle = issued_bundle(data_dir, "rack-7")
    now = bundle.not_before
    refusals = [grpc.StatusCode.UNAVAILABLE]
    asked: list[bytes] = []
    refused = asyncio.Event()

    async def renew(request: pb.RenewRequest, **_options: object) -> pb.CertificateChain:
        asked.append(request.csr)
        if refusals:
            refused.set()
            metadata = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(refusals.pop(), metadata, metadata, details="the disk is full")
        (held,) = authority.issued()
        holder = WorkerCertificate("rack-7", held.serial, held.issued_at, held.expires_at)
        return pb.CertificateChain(certificates=authority.renew(holder, request.csr))

    def clock() -> float:
        return now

    async def scenario() -> None:
        nonlocal now
        renewer = CertificateRenewer(tmp_path, bundle, random.Random(1), clock)
        before = renewer.channel_credentials()
        now = bundle.not_before + 0.6 * (bundle.not_after - bundle.not_before)
        early = asyncio.ensure_future(renewer.renew_when_due(renew))
        await asyncio.sleep(0.05)
        assert not early.done()
        assert asked == []
        early.cancel()
        now = bundle.not_before + 0.67 * (bundle.not_after - bundle.not_before)
        late = asyncio.ensure_future(renewer.renew_when_due(renew))
        await refused.wait()
        # The next try comes later.
        await asyncio.sleep(0.05)
        assert len(asked) == 1
        late.cancel()
        assert renewer.channel_credentials() is before, "the connection is kept"
        now = bundle.not_after - 60.0
        await renewer.renew_when_due(renew)
        assert renewer.channel_credentials() is not before
        assert renewer.health_error() is None
        now = bundle.not_after
        assert renewer.health_error() is None

    authority = Authority(data_dir, clock=clock)
    asyncio.run(scenario())
    kept = read_bundle(tmp_path / "tls.pem")
    assert kept is not None
    assert kept.not_after > bundle.not_after
    assert kept.key_pem != bundle.key_pem
    assert len(asked) == 2
