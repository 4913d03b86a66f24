"""Cases for monitoring/rules/master.yml."""

from tests.monitoring.promtool import Case, Firing, flat, rising, turning

DASHBOARD = "fleetpulse-master"
METRICS = "curl -s http://master:8080/metrics | grep"
ALIVE = {'fleetpulse_build_info{version="0.1.0",python_version="3.11.2"}': flat(1)}
STARTS = "process_start_time_seconds"
DURATION = "scrape_duration_seconds"
SAMPLES = "scrape_samples_scraped"


def firing(severity: str, summary: str, description: str, command: str, **labels: str) -> Firing:
    return Firing(severity, "master", summary, description, command, DASHBOARD, labels)


PRESENCE = [
    Case(
        "FleetPulseMasterDown", "down", {"up": turning((1, 5), (0, 20))}, [4, 5], 6,
        [
            firing(
                "critical", "The master master:8080 cannot be scraped",
                "Prometheus cannot scrape the master master:8080. The state of its fleet is unknown, and alerts "
                "about the fleet cannot fire.",
                "curl -s --max-time 10 http://master:8080/health",
            )
        ],
    ),
    Case("FleetPulseMasterDown", "another-job", {'up{job="node"}': flat(0)}, [6, 20]),
    Case("FleetPulseMasterDown", "up", {"up": flat(1)}, [6, 20]),
    Case(
        "FleetPulseMasterAbsent", "gone-from-the-configuration", {"up": turning((1, 5), ("stale", 1))}, [4, 9], 10,
        [
            Firing(
                "critical", "master", "Prometheus has no master to scrape",
                "No target has the job fleetpulse. The configuration of Prometheus has lost it, and alerts about the "
                "fleet cannot fire.",
                "curl -s http://localhost:9090/api/v1/targets | jq -r '.data.activeTargets[] | [.labels.job, "
                ".scrapeUrl, .health] | @tsv'",
                DASHBOARD, master={"job": "fleetpulse"},
            )
        ],
    ),
    Case("FleetPulseMasterAbsent", "down-is-not-absent", {"up": flat(0)}, [10, 20]),
    Case(
        "FleetPulseMasterRestarting", "three-starts", ALIVE | {STARTS: "10 60 120 180+0x30"}, [2, 3], 4,
        [
            firing(
                "critical", "The master master:8080 restarts repeatedly",
                "The web process of the master master:8080 was started 3 times in 30 minutes. After a restart it "
                "does not know workers that were already down.",
                "journalctl -u fleetpulse-master --since -30min --priority warning",
            )
        ],
    ),
    Case("FleetPulseMasterRestarting", "two-starts", ALIVE | {STARTS: "10 60 120+0x30"}, [4, 20]),
    Case("FleetPulseMasterRestarting", "another-program", {STARTS: "10 60 120 180+0x30"}, [4, 20]),
]  # fmt: skip

SCRAPES = [
    Case(
        "FleetPulseScrapeSlow", "5.5-s", {DURATION: flat(5.5)}, [1, 9], 10,
        [
            firing(
                "warning", "Scrapes of the master master:8080 are slow",
                "A scrape of the master master:8080 takes 5.5s. Beyond the scrape timeout there are no metrics at "
                "all.",
                "curl -s -o /dev/null -w '%{time_starttransfer} s, %{time_total} s, %{size_download} bytes\\n' "
                "--compressed http://master:8080/metrics",
            )
        ],
    ),
    Case("FleetPulseScrapeSlow", "4.5-s", {DURATION: flat(4.5)}, [10, 30]),
    Case("FleetPulseScrapeSlow", "once", {DURATION: turning((0.1, 10), (9, 1), (0.1, 20))}, [10, 15, 20]),
    Case(
        "FleetPulseSampleLimitNear", "850000", {SAMPLES: flat(850_000)}, [1, 14], 15,
        [
            firing(
                "warning", "The fleet outgrows the sample limit",
                "A scrape of the master master:8080 has 850000 samples. Beyond the sample_limit of prometheus.yml, "
                "1000000, Prometheus rejects the whole scrape.",
                "curl -s http://master:8080/metrics | grep -v '^#' | grep -oE '^[a-z_]+' | sort | uniq -c | sort -rn | "
                "head",
            )
        ],
    ),
    Case("FleetPulseSampleLimitNear", "750000", {SAMPLES: flat(750_000)}, [15, 30]),
]  # fmt: skip


def answers(failed: float, fine: float) -> dict[str, str]:
    return {
        'fleetpulse_http_requests_total{route="/api/tasks",method="POST",status="503"}': rising(failed),
        'fleetpulse_http_requests_total{route="/metrics",method="GET",status="200"}': rising(fine),
        'fleetpulse_http_requests_total{route="/telemetry/{worker_id}",method="GET",status="404"}': rising(500 - fine),
    }


def calls(code: str, by: float) -> dict[str, str]:
    return {f'fleetpulse_grpc_requests_total{{method="Connect",code="{code}"}}': rising(by)}


def rejected(reason: str, by: float) -> dict[str, str]:
    return {f'fleetpulse_heartbeats_rejected_total{{reason="{reason}"}}': rising(by)}


DOORS = [
    Case(
        "FleetPulseHttpErrors", "5.5-percent", answers(55 / 2, 945 / 2), [1, 10], 11,
        [
            firing(
                "warning", "The master master:8080 fails on HTTP requests",
                "5.213% of the HTTP answers of the master master:8080 have a status of 5xx.",
                f"{METRICS} -E '^fleetpulse_http_requests_total.*status=\"5'",
            )
        ],
    ),
    Case("FleetPulseHttpErrors", "4.5-percent", answers(45 / 2, 955 / 2), [11, 30]),
    Case(
        "FleetPulseGrpcErrors", "6.6-a-minute", calls("INVALID_ARGUMENT", 6.6), [10, 19], 20,
        [
            firing(
                "warning", "gRPC calls to the master master:8080 end with INVALID_ARGUMENT",
                "0.11 calls per second of Connect to the master master:8080 end with INVALID_ARGUMENT.",
                f"{METRICS} -E '^fleetpulse_(grpc_requests|worker_sessions_refused)_total'",
                method="Connect", code="INVALID_ARGUMENT",
            )
        ],
    ),
    Case("FleetPulseGrpcErrors", "5.4-a-minute", calls("INVALID_ARGUMENT", 5.4), [20, 60]),
    Case(
        "FleetPulseGrpcErrors", "everyday-life",
        calls("OK", 60) | calls("CANCELLED", 60) | calls("UNAVAILABLE", 60) | calls("ABORTED", 60), [20, 60],
    ),
    Case(
        "FleetPulseHeartbeatsRejected", "6.6-a-minute", rejected("invalid_reading", 6.6), [10, 19], 20,
        [
            firing(
                "warning", "The master master:8080 refuses heartbeats",
                "0.11 heartbeats per second are rejected by the master master:8080 with the reason invalid_reading.",
                f"{METRICS} '^fleetpulse_heartbeats_rejected_total'",
                reason="invalid_reading",
            )
        ],
    ),
    Case("FleetPulseHeartbeatsRejected", "5.4-a-minute", rejected("invalid_reading", 5.4), [20, 60]),
    Case("FleetPulseHeartbeatsRejected", "sent-twice", rejected("stale", 60), [20, 60]),
]  # fmt: skip


def failures(by: float) -> dict[str, str]:
    return {'fleetpulse_store_errors_total{reason="disk_full"}': rising(by)}


def commits(**by_bound: float) -> dict[str, str]:
    bounds = {"b0_5": "0.5", "b1": "1.0", "b2_5": "2.5", "inf": "+Inf"}
    name = "fleetpulse_store_commit_seconds_bucket"
    return {f'{name}{{le="{bounds[bound]}"}}': rising(by) for bound, by in by_bound.items()}


def files(open_ones: int) -> dict[str, str]:
    return {"process_open_fds": flat(open_ones), "process_max_fds": flat(1000)}


def lost(by: float) -> dict[str, str]:
    return {'fleetpulse_audit_entries_dropped_total{reason="write_failed"}': rising(by)}


def used(holder: str, ratio: float) -> dict[str, str]:
    return {f'fleetpulse_certificate_life_used_ratio{{holder="{holder}"}}': flat(ratio)}


CERTIFICATES = [
    Case(
        "FleetPulseCertificateNotRenewed", "a-worker", used("worker", 0.76) | used("master", 0.74), [1, 9], 10,
        [
            firing(
                "warning", "A certificate of a worker was not renewed in time",
                "A certificate of a worker has used 76% of its lifetime, on the master master:8080. It should have "
                "been renewed at two thirds.",
                "fleetpulse ca list", holder="worker",
            )
        ],
    ),
    Case("FleetPulseCertificateNotRenewed", "in-time", used("worker", 0.74) | used("master", 0), [10, 30]),
    Case(
        "FleetPulseCertificateNearlyExpired", "the-masters", used("worker", 0.89) | used("master", 0.91), [1, 9], 10,
        [
            firing(
                "critical", "A certificate of a master is about to expire",
                "A certificate of a master has used 91% of its lifetime, on the master master:8080. When it expires, "
                "the streams that use it end.",
                "fleetpulse ca list", holder="master",
            )
        ],
    ),
    Case("FleetPulseCertificateNearlyExpired", "not-yet", used("worker", 0.89) | used("master", 0.89), [10, 30]),
]  # fmt: skip

STORE = [
    Case(
        "FleetPulseStoreFailing", "disk-full", failures(30), [1, 2], 3,
        [
            firing(
                "critical", "The store of the master master:8080 fails",
                "0.30 transactions per second of the master master:8080 fail with disk_full. Meanwhile no task is "
                "accepted.",
                "curl -s http://master:8080/health | jq", reason="disk_full",
            )
        ],
    ),
    Case("FleetPulseStoreFailing", "once-and-long-ago", failures(0), [3, 30]),
    Case(
        "FleetPulseStoreSlow", "p99-above-a-second", commits(b0_5=900, b1=989, b2_5=1000, inf=1000), [1, 10], 11,
        [
            firing(
                "warning", "The store of the master master:8080 is slow",
                "One transaction in a hundred of the master master:8080 takes 1.136s or longer. Submits are delayed "
                "as much.",
                f"{METRICS} '^fleetpulse_store_commit_seconds'",
            )
        ],
    ),
    Case("FleetPulseStoreSlow", "p99-just-below", commits(b0_5=900, b1=1000, b2_5=1000, inf=1000), [11, 30]),
    Case(
        "FleetPulseMasterOpenFiles", "820-of-1000", ALIVE | files(820), [1, 9], 10,
        [
            firing(
                "warning", "The master master:8080 runs out of open files",
                "82% of the files that the master master:8080 may open are open. Every worker needs one; at the "
                "limit no worker can connect.",
                f"{METRICS} -E '^(process_(open|max)_fds|fleetpulse_worker_sessions) '",
            )
        ],
    ),
    Case("FleetPulseMasterOpenFiles", "780-of-1000", ALIVE | files(780), [10, 30]),
    Case("FleetPulseMasterOpenFiles", "another-program", files(990), [10, 30]),
    Case(
        "FleetPulseAuditTrailIncomplete", "disk-full", lost(30), [0, 1], 2,
        [
            firing(
                "warning", "The audit trail of the master master:8080 has a gap",
                "Entries of the audit trail of the master master:8080 were lost in the last 15 minutes "
                "(write_failed). Some actions may not be recorded.",
                f"{METRICS} '^fleetpulse_audit_'", reason="write_failed",
            )
        ],
    ),
    Case("FleetPulseAuditTrailIncomplete", "long-ago", lost(0), [3, 30]),
]  # fmt: skip

CASES = [*PRESENCE, *SCRAPES, *DOORS, *CERTIFICATES, *STORE]
