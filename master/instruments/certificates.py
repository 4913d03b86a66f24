"""What the master counts of certificates that it gives to workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class CertificateInstruments:
    """Built by ``Instruments``, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.issued = Counter(
            "fleetpulse_certificates_issued_total",
            "Certificates that workers were given, by how: with a join token, or for the one they had.",
            ["how"],
            registry=registry,
        )
        self.refused = Counter(
            "fleetpulse_certificates_refused_total",
            "Requests for a certificate that the master refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.life_used = Gauge(
            "fleetpulse_certificate_life_used_ratio",
            "Share of its life that the master's certificate has behind it, and the most that one of a connected "
            "worker has; absent where there is none.",
            ["holder"],
            registry=registry,
        )
        self.expiry = Gauge(
            "fleetpulse_certificate_expiry_timestamp_seconds",
            "When the master's certificate expires, and the first of those of connected workers; absent where there is "
            "none.",
            ["holder"],
            registry=registry,
        )
        for how in ("join", "renew"):
            self.issued.labels(how)
