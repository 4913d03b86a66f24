"""master.pki.authority and master.pki.admission"""

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fleetpulse.master.errors import (
    CertificateExpired,
    CertificateMismatch,
    CertificateRevoked,
    ConfigError,
    ExpiredJoinToken,
    InvalidMessage,
    TooManyAttempts,
    UnknownJoinToken,
    UsedJoinToken,
    WorkerIdInUse,
    WorkerIdNotGranted,
)
from fleetpulse.master.pki import authority as module
from fleetpulse.master.pki import ca_folder, workers_need_certificates
from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.pki.authority import MAX_EXPIRED, Authority, CaState, IssuedRecord, create
from fleetpulse.master.pki.certificates import worker_certificate_from
from fleetpulse.worker.credentials.bundle import new_key, signing_request
from tests.certificates import new_authority

DER, PEM = Encoding.DER, Encoding.PEM
HOUR = 3600.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ca(tmp_path: Path, clock: Clock) -> Authority:
    create(tmp_path, clock)
    return Authority(tmp_path, clock=clock)


def csr(worker_id: str = "rack-7") -> bytes:
    return signing_request(new_key(), worker_id)


def certificate(chain: list[bytes]) -> WorkerCertificate:
    """What the master sees of a chain when it is shown."""
    found = worker_certificate_from(x509.load_der_x509_certificate(chain[0]).public_bytes(PEM))
    assert found is not None
    return found


def test_workers_need_certificates_once_there_is_a_ca(tmp_path: Path) -> None:
    assert not workers_need_certificates(tmp_path)
    new_authority(tmp_path)
    assert workers_need_certificates(tmp_path)


def test_files_are_private_and_contain_no_token(tmp_path: Path, ca: Authority) -> None:
    token = ca.new_join_token(HOUR)
    folder = ca_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"key.pem", "certificate.pem", "state.json", "lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [path for path in folder.iterdir() if token.encode()[-20:] in path.read_bytes()]


def test_ca_is_made_once(tmp_path: Path, ca: Authority) -> None:
    with pytest.raises(ConfigError, match="already"):
        create(tmp_path)
    assert Authority(tmp_path).fingerprint == ca.fingerprint


@pytest.mark.parametrize("name", ["certificate.pem", "key.pem", "state.json"])
def test_damaged_ca_is_refused_in_one_line(tmp_path: Path, ca: Authority, name: str) -> None:
    (ca_folder(tmp_path) / name).write_bytes(b"{}")
    with pytest.raises(ConfigError, match="damaged") as caught:
        Authority(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused_in_one_line(tmp_path: Path, ca: Authority) -> None:
    (ca_folder(tmp_path) / "key.pem").unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Authority(tmp_path)


def test_token_works_once(ca: Authority) -> None:
    token = ca.new_join_token(HOUR)
    chain = ca.join(token, csr())
    ca.admission.check(certificate(chain), "rack-7")
    with pytest.raises(UsedJoinToken):
        ca.join(token, csr("rack-8"))
    assert [one.worker_id for one in ca.issued()] == ["rack-7"]


def test_lost_answer_may_be_requested_again_with_the_same_key(ca: Authority) -> None:
    token, request = ca.new_join_token(HOUR), csr()
    first, again = certificate(ca.join(token, request)), certificate(ca.join(token, request))
    assert {one.serial: one.revoked_at is None for one in ca.issued()} == {first.serial: False, again.serial: True}


def test_every_lost_answer_may_be_requested_again(ca: Authority) -> None:
    token, request = ca.new_join_token(HOUR), csr()
    given = [certificate(ca.join(token, request)) for _ in range(4)]
    assert [one.serial for one in ca.issued() if one.revoked_at is None] == [given[-1].serial]


def test_spent_token_is_refused_to_a_replaced_machine(ca: Authority) -> None:
    token, request = ca.new_join_token(HOUR, "rack-*", uses=5), csr()
    ca.join(token, request)
    replacement = certificate(ca.join(ca.new_join_token(HOUR, "rack-7"), csr()))
    with pytest.raises(UsedJoinToken):
        ca.join(token, request)
    ca.refresh()
    ca.admission.check(replacement, "rack-7")


def test_spent_token_is_refused_after_renewal_or_expiry(ca: Authority, clock: Clock) -> None:
    token, request = ca.new_join_token(90 * 86400.0), csr()
    first = certificate(ca.join(token, request))
    renewed = certificate(ca.renew(first, csr()))
    with pytest.raises(UsedJoinToken):
        ca.join(token, request)
    ca.refresh()
    ca.admission.check(renewed, "rack-7")
    other, another = ca.new_join_token(90 * 86400.0), csr("rack-8")
    clock.now = certificate(ca.join(other, another)).not_after
    with pytest.raises(UsedJoinToken):
        ca.join(other, another)


@pytest.mark.parametrize("by", ["id", "serial"])
@pytest.mark.parametrize("wanted", [None, "rack-*"])
def test_revoked_worker_cannot_reuse_its_token(ca: Authority, by: str, wanted: str | None) -> None:
    token, request = ca.new_join_token(HOUR, wanted, uses=3), csr()
    held = certificate(ca.join(token, request))
    ca.join(token, csr("rack-8"))
    ca.revoke("rack-7" if by == "id" else held.serial)
    for asked in (request, csr()):
        with pytest.raises(UsedJoinToken, match="rack-7, which was revoked"):
            ca.join(token, asked)
    replacement = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    for asked in (request, csr()):
        with pytest.raises(UsedJoinToken):
            ca.join(token, asked)
    ca.refresh()
    ca.admission.check(replacement, "rack-7")
    ca.join(token, csr("rack-9"))


def test_revoking_one_worker_keeps_the_retries_of_others(ca: Authority) -> None:
    token, request = ca.new_join_token(HOUR, "rack-*", uses=2), csr("rack-8")
    ca.join(token, csr())
    ca.join(token, request)
    ca.revoke("rack-7")
    ca.join(token, request)


@pytest.mark.parametrize("by", ["id", "serial"])
def test_revoked_worker_joins_with_a_new_token(ca: Authority, by: str) -> None:
    request = csr()
    held = certificate(ca.join(ca.new_join_token(HOUR, "rack-7"), request))
    ca.revoke("rack-7" if by == "id" else held.serial)
    new = ca.new_join_token(HOUR, "rack-7")
    ca.join(new, request)
    again = certificate(ca.join(new, request))
    ca.refresh()
    ca.admission.check(again, "rack-7")


def test_revoking_blocks_the_token_of_a_worker_with_pruned_certificates(ca: Authority, clock: Clock) -> None:
    token = ca.new_join_token(90 * 86400.0, "rack-*", uses=2)
    ca.join(token, csr())
    clock.now += 40 * 86400.0
    ca.new_join_token(HOUR)
    assert ca.issued() == []
    assert ca.revoke("rack-7") == []
    with pytest.raises(UsedJoinToken):
        ca.join(token, csr())


def test_uses_written_by_an_earlier_version_stay_spent(tmp_path: Path, ca: Authority) -> None:
    token, request = ca.new_join_token(HOUR, "rack-*", uses=2), csr()
    held = certificate(ca.join(token, request))
    path = ca_folder(tmp_path) / "state.json"
    content = orjson.loads(path.read_bytes())
    (use,) = content["tokens"][0]["uses"]
    content["tokens"][0]["uses"] = [{name: use[name] for name in ("worker_id", "key_fingerprint")}]
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(UsedJoinToken):
        ca.join(token, request)
    ca.refresh()
    ca.admission.check(held, "rack-7")
    ca.join(token, csr("rack-8"))
    with pytest.raises(UsedJoinToken):
        ca.join(token, csr("rack-9"))


def test_token_for_several_uses(ca: Authority) -> None:
    token = ca.new_join_token(HOUR, "sim-*", uses=2)
    for worker_id in ("sim-1", "sim-2"):
        ca.join(token, csr(worker_id))
    with pytest.raises(UsedJoinToken):
        ca.join(token, csr("sim-3"))


@pytest.mark.parametrize("wanted", [None, "*", "rack-*", "rack-7*"])
def test_only_a_token_for_exactly_this_id_takes_over_an_id_in_use(ca: Authority, wanted: str | None) -> None:
    key = new_key()
    held = certificate(ca.join(ca.new_join_token(HOUR), signing_request(key, "rack-7")))
    with pytest.raises(WorkerIdInUse, match="--worker-id rack-7"):
        ca.join(ca.new_join_token(HOUR, wanted, uses=5), csr())
    ca.refresh()
    ca.admission.check(held, "rack-7")

    same_key = certificate(ca.join(ca.new_join_token(HOUR, wanted), signing_request(key, "rack-7")))
    renewal = new_key()
    ca.refresh()
    renewed = certificate(ca.renew(same_key, signing_request(renewal, "rack-7")))
    again = certificate(ca.join(ca.new_join_token(HOUR, wanted), signing_request(renewal, "rack-7")))
    named = certificate(ca.join(ca.new_join_token(HOUR, "rack-7"), csr()))
    assert [one.serial for one in ca.issued() if one.revoked_at is None] == [named.serial]
    assert len({renewed.serial, again.serial, named.serial}) == 3


def test_id_is_free_again_once_its_certificate_is_revoked_or_expired(ca: Authority, clock: Clock) -> None:
    token = ca.new_join_token(90 * 86400.0, "rack-*", uses=5)
    ca.join(ca.new_join_token(HOUR), csr())
    ca.revoke("rack-7")
    held = certificate(ca.join(token, csr()))
    clock.now = held.not_after
    ca.join(ca.new_join_token(HOUR, "rack-*"), csr())


def test_key_of_a_certificate_that_an_earlier_version_issued_is_known_by_its_token(
    tmp_path: Path, ca: Authority
) -> None:
    request = csr()
    ca.join(ca.new_join_token(HOUR), request)
    path = ca_folder(tmp_path) / "state.json"
    content = orjson.loads(path.read_bytes())
    del content["issued"][0]["key_fingerprint"]
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(WorkerIdInUse):
        ca.join(ca.new_join_token(HOUR, "rack-*"), csr())
    ca.join(ca.new_join_token(HOUR, "rack-*"), request)


def test_token_expires(ca: Authority, clock: Clock) -> None:
    token = ca.new_join_token(HOUR)
    clock.now += HOUR
    with pytest.raises(ExpiredJoinToken):
        ca.join(token, csr())
    assert ca.issued() == []


@pytest.mark.parametrize("text", ["", "fpj1_", "fpj1_" + "A" * 75, "word", "\0" * 100])
def test_text_that_is_no_token_is_refused(ca: Authority, text: str) -> None:
    with pytest.raises(UnknownJoinToken):
        ca.join(text, csr())


def test_token_of_another_ca_is_unknown(ca: Authority, tmp_path: Path) -> None:
    other = new_authority(tmp_path / "other")
    with pytest.raises(UnknownJoinToken):
        ca.join(other.new_join_token(HOUR), csr())


@pytest.mark.parametrize("wanted", ["rack-8", "rack-70", "sim-*"])
def test_token_for_one_id_grants_no_other(ca: Authority, wanted: str) -> None:
    token = ca.new_join_token(HOUR, wanted)
    with pytest.raises(WorkerIdNotGranted):
        ca.join(token, csr("rack-7"))


@pytest.mark.parametrize("worker_id", ["", "-", "a b", "**", "sim-**"])
def test_token_requires_a_valid_worker_id(ca: Authority, worker_id: str) -> None:
    with pytest.raises(ConfigError, match="no worker id"):
        ca.new_join_token(HOUR, worker_id)


def test_token_for_any_id_does_not_grant_one_in_use(ca: Authority) -> None:
    held = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    token = ca.new_join_token(HOUR)
    with pytest.raises(WorkerIdNotGranted, match="revoke it"):
        ca.join(token, csr())
    ca.revoke("rack-7")
    ca.join(token, csr())
    ca.refresh()
    with pytest.raises(CertificateRevoked):
        ca.admission.check(held, "rack-7")


def test_new_join_revokes_earlier_certificates(ca: Authority) -> None:
    before = certificate(ca.join(ca.new_join_token(HOUR, "rack-7"), csr()))
    after = certificate(ca.join(ca.new_join_token(HOUR, "rack-7"), csr()))
    assert ca.refresh()
    ca.admission.check(after, "rack-7")
    with pytest.raises(CertificateRevoked):
        ca.admission.check(before, "rack-7")


def test_certificate_is_renewed_for_its_own_worker(ca: Authority, clock: Clock) -> None:
    first = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    clock.now += HOUR
    second = certificate(ca.renew(first, csr()))
    assert second.not_after == first.not_after + HOUR
    ca.admission.check(first, "rack-7")
    ca.admission.check(second, "rack-7")
    with pytest.raises(CertificateMismatch):
        ca.renew(first, csr("rack-8"))
    with pytest.raises(CertificateMismatch):
        ca.renew(None, csr())


def test_certificate_without_a_record_is_not_renewed(ca: Authority, clock: Clock, tmp_path: Path) -> None:
    create(tmp_path / "other", clock)
    other = Authority(tmp_path / "other", clock=clock)
    foreign = certificate(other.join(other.new_join_token(HOUR), csr()))
    with pytest.raises(CertificateMismatch, match="not given by this CA"):
        ca.renew(foreign, csr())


def test_renewals_are_limited(ca: Authority) -> None:
    held = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    for _ in range(module.MAX_LIVE_CERTIFICATES - 1):
        ca.renew(held, csr())
    with pytest.raises(TooManyAttempts):
        ca.renew(held, csr())


def with_records(tmp_path: Path, count: int, expires_at: float, revoked_at: float | None = None) -> None:
    """Add certificates of rack-7 to what the CA remembers, before those that it has."""
    path = ca_folder(tmp_path) / "state.json"
    state = msgspec.json.decode(path.read_bytes(), type=CaState)
    more = (IssuedRecord("rack-7", f"{n:x}", expires_at - HOUR, expires_at, revoked_at) for n in range(count))
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(state, issued=(*more, *state.issued))))


def test_expired_certificates_do_not_count_and_only_the_newest_are_kept(
    tmp_path: Path, ca: Authority, clock: Clock
) -> None:
    other = certificate(ca.join(ca.new_join_token(HOUR), csr("rack-8")))
    held = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    with_records(tmp_path, module.MAX_CERTIFICATES, clock.now - 1.0)
    renewed = certificate(ca.renew(held, csr()))
    serials = [one.serial for one in ca.issued()]
    kept = range(module.MAX_CERTIFICATES - MAX_EXPIRED, module.MAX_CERTIFICATES)
    assert serials == [*(f"{n:x}" for n in kept), held.serial, renewed.serial, other.serial]


def test_revoked_certificates_are_kept_until_they_expire_and_limited(
    tmp_path: Path, ca: Authority, clock: Clock
) -> None:
    with_records(tmp_path, module.MAX_CERTIFICATES - 1, clock.now + HOUR, clock.now)
    token, request = ca.new_join_token(2 * HOUR), csr()
    ca.join(token, request)
    with pytest.raises(TooManyAttempts):
        ca.join(token, request)
    assert len(ca.issued()) == module.MAX_CERTIFICATES
    clock.now += HOUR
    ca.join(token, request)


def test_expired_certificate_is_refused(ca: Authority, clock: Clock) -> None:
    held = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    clock.now = held.not_after
    with pytest.raises(CertificateExpired):
        ca.admission.check(held, "rack-7")
    with pytest.raises(CertificateExpired):
        ca.renew(held, csr())


@pytest.mark.parametrize("by", ["id", "serial"])
def test_refresh_sees_a_revocation(tmp_path: Path, ca: Authority, clock: Clock, by: str) -> None:
    held = certificate(ca.join(ca.new_join_token(HOUR), csr()))
    master = Authority(tmp_path, clock=clock)
    assert not master.refresh()
    revoked = ca.revoke("rack-7" if by == "id" else held.serial)
    assert [one.serial for one in revoked] == [held.serial]
    assert ca.revoke(held.serial) == []
    master.admission.check(held, "rack-7")
    assert master.refresh()
    with pytest.raises(CertificateRevoked):
        master.admission.check(held, "rack-7")
    with pytest.raises((CertificateRevoked, CertificateMismatch)):
        master.renew(held, csr())


def test_revoking_a_worker_removes_its_unused_token(ca: Authority) -> None:
    token = ca.new_join_token(HOUR, "rack-7")
    assert ca.revoke("rack-7") == []
    with pytest.raises(UnknownJoinToken):
        ca.join(token, csr())
    with pytest.raises(ConfigError, match="nothing was given"):
        ca.revoke("rack-7")


def test_expired_records_are_pruned_after_a_day(ca: Authority, clock: Clock) -> None:
    ca.join(ca.new_join_token(HOUR), csr())
    clock.now += 40 * 86400.0
    ca.new_join_token(HOUR)
    assert ca.issued() == []


def test_concurrent_joins_lose_nothing(tmp_path: Path, ca: Authority) -> None:
    token = ca.new_join_token(HOUR, "*", uses=3)
    outcomes: list[str] = []

    def join(number: int) -> None:
        try:
            Authority(tmp_path, clock=ca._clock).join(token, csr(f"rack-{number}"))
            outcomes.append("joined")
        except UsedJoinToken:
            outcomes.append("used")

    threads = [threading.Thread(target=join, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["joined"] * 3 + ["used"] * 3
    assert len(ca.issued()) == 3


# Requests


def rsa_request() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("fleetpulse://worker/rack-7")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(DER)


def named_request(*names: x509.GeneralName) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(new_key(), hashes.SHA256()).public_bytes(DER)


def forged_request() -> bytes:
    data = bytearray(csr())
    data[-1] ^= 1
    return bytes(data)


URI = x509.UniformResourceIdentifier
BAD_REQUESTS: dict[str, Callable[[], bytes]] = {
    "a bad id": lambda: named_request(URI("fleetpulse://worker/-rack")),
    "a dns name": lambda: named_request(x509.DNSName("rack-7")),
    "a forged signature": forged_request,
    "a host name beside it": lambda: named_request(URI("fleetpulse://worker/rack-7"), x509.DNSName("master")),
    "an RSA key": rsa_request,
    "no name": named_request,
    "noise": lambda: b"\x30\x82" + b"\0" * 100,
    "nothing": lambda: b"",
    "too long": lambda: csr() + bytes(5000),
    "two ids": lambda: named_request(URI("fleetpulse://worker/rack-7"), URI("fleetpulse://worker/rack-8")),
}


@pytest.mark.parametrize("kind", sorted(BAD_REQUESTS))
def test_invalid_request_is_refused_and_spends_no_token(ca: Authority, kind: str) -> None:
    token = ca.new_join_token(HOUR)
    with pytest.raises(InvalidMessage, match="csr"):
        ca.join(token, BAD_REQUESTS[kind]())
    ca.join(token, csr())


def test_long_worker_id_is_kept_whole(ca: Authority) -> None:
    worker_id = "a" * 128
    assert certificate(ca.join(ca.new_join_token(HOUR), csr(worker_id))).worker_id == worker_id


def test_certificate_of_a_master_is_not_a_workers(ca: Authority) -> None:
    pair = ca.server_pair(["localhost", "127.0.0.1"])
    assert worker_certificate_from(pair.certificate.public_bytes(PEM)) is None
    assert "PRIVATE" not in repr(pair)
