"""worker.credentials: what a worker keeps, and when it takes something newer"""

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
from fleetpulse.worker.credentials.keeper import CertificateRenewer, credentials_for
from tests.certificates import joined, new_authority

NOBODY = JoinEndpoint("127.0.0.1", 1)


def never(_seconds: float) -> None:
    raise AssertionError("nothing is to be waited for")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A master's, with a CA."""
    new_authority(tmp_path / "master")
    return tmp_path / "master"


def test_what_is_written_is_read_and_shows_no_key(data_dir: Path, tmp_path: Path) -> None:
    bundle = joined(data_dir, "rack-7")
    write_bundle(tmp_path / "tls.pem", bundle)
    assert read_bundle(tmp_path / "tls.pem") == bundle
    assert (tmp_path / "tls.pem").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(bundle)


@pytest.mark.parametrize("damage", ["cut", "empty", "key of another", "noise"])
def test_a_damaged_file_is_one_line_that_says_what_to_do(data_dir: Path, tmp_path: Path, damage: str) -> None:
    path, bundle = tmp_path / "tls.pem", joined(data_dir, "rack-7")
    write_bundle(path, bundle)
    if damage == "key of another":
        write_bundle(path, bundle._replace(key_pem=joined(data_dir, "rack-8").key_pem))
    else:
        path.write_bytes({"cut": path.read_bytes()[:600], "empty": b"", "noise": bytes(100)}[damage])
    with pytest.raises(CredentialsError, match=r"damaged; remove it and join again$"):
        credentials_for("rack-7", tmp_path, None, NOBODY, time.time(), never)


def test_without_anything_there_is_no_tls(tmp_path: Path) -> None:
    assert credentials_for("rack-7", tmp_path, None, NOBODY, time.time(), never) is None


def test_a_certificate_of_another_id_is_not_shown(data_dir: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "tls.pem", joined(data_dir, "rack-7"))
    with pytest.raises(CredentialsError, match="is for the worker id rack-7, not for rack-8"):
        credentials_for("rack-8", tmp_path, None, NOBODY, time.time(), never)


def test_an_expired_certificate_asks_for_a_token(data_dir: Path, tmp_path: Path) -> None:
    bundle = joined(data_dir, "rack-7")
    write_bundle(tmp_path / "tls.pem", bundle)
    assert credentials_for("rack-7", tmp_path, None, NOBODY, bundle.not_after - 1.0, never) == bundle
    with pytest.raises(CredentialsError, match=r"expired on .* UTC; join again with a new token"):
        credentials_for("rack-7", tmp_path, None, NOBODY, bundle.not_after, never)


def test_a_master_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    waited: list[float] = []

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise Enough

    with pytest.raises(Enough):
        credentials_for("rack-7", tmp_path, new_join_token(bytes(32)), NOBODY, time.time(), sleep)


def test_it_is_renewed_when_it_is_due_and_kept(data_dir: Path, tmp_path: Path) -> None:
    bundle = joined(data_dir, "rack-7")
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
        keeper = CertificateRenewer(tmp_path, bundle, random.Random(1), clock)
        now = bundle.not_before + 0.6 * (bundle.not_after - bundle.not_before)
        early = asyncio.ensure_future(keeper.renew_when_due(renew))
        await asyncio.sleep(0.05)
        assert not early.done()
        assert asked == []
        early.cancel()
        now = bundle.not_before + 0.67 * (bundle.not_after - bundle.not_before)
        late = asyncio.ensure_future(keeper.renew_when_due(renew))
        await refused.wait()
        # It is tried again later.
        await asyncio.sleep(0.05)
        assert len(asked) == 1
        late.cancel()
        now = bundle.not_after - 60.0
        await keeper.renew_when_due(renew)
        assert keeper.health_error() is None
        now = bundle.not_after
        assert keeper.health_error() is None

    authority = Authority(data_dir, clock=clock)
    asyncio.run(scenario())
    kept = read_bundle(tmp_path / "tls.pem")
    assert kept is not None
    assert kept.not_after > bundle.not_after
    assert kept.key_pem != bundle.key_pem
    assert len(asked) == 2
