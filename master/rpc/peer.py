"""The certificate that the other end of a call has shown."""

from fleetpulse.master.pki.admission import WorkerCertificate
from fleetpulse.master.pki.certificates import worker_certificate_from
from fleetpulse.master.rpc.stream import Call


def peer_certificate(call: Call) -> WorkerCertificate | None:
    """What grpc has verified; ``None`` without TLS, and for a certificate that is none of a worker."""
    shown = call.auth_context().get("x509_pem_cert")
    return worker_certificate_from(next(iter(shown))) if shown else None
