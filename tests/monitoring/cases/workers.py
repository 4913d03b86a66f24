"""Cases for monitoring/rules/workers.yml."""

from tests.monitoring.promtool import Case, Firing, flat, rising, turning

W = '{worker_id="rack-7"}'
GONE_AT_5 = {
    f"fleetpulse_worker_up{W}": turning((1, 5), (0, 60)),
    f"fleetpulse_worker_last_heartbeat_timestamp_seconds{W}": turning((0, 1), (60, 1), (120, 1), (180, 1), (240, 61)),
}
DRAINED = {f"fleetpulse_worker_draining{W}": flat(1)}
NOT_DRAINED = {f"fleetpulse_worker_draining{W}": flat(0)}
TASKS_UNTIL_5 = {f"fleetpulse_worker_running_tasks{W}": turning((1, 5), ("stale", 1))}
WORKER = "fleetpulse-worker?var-worker=rack-7"
API = "curl -s http://master:8080/api/workers/rack-7"
RACK_7 = {"worker_id": "rack-7"}
WHO_IS_GONE = "curl -s http://master:8080/workers | jq -r '.[] | select(.is_active | not) | .worker_id'"


def inactive(worker_id: str, instance: str) -> Firing:
    return Firing(
        "warning",
        "workers",
        f"Worker {worker_id} is inactive",
        f"Worker {worker_id} has sent no heartbeat for 2m 0s. The machine, its network or its worker process is down. "
        "Its attempts are lost after the inactivity timeout.",
        f"curl -s http://{instance}/api/workers/{worker_id} | jq '{{hostname, is_active, telemetry}}'",
        f"fleetpulse-worker?var-worker={worker_id}",
        {"worker_id": worker_id},
        {"job": "fleetpulse", "instance": instance},
    )


INACTIVE = [
    Case("FleetPulseWorkerInactive", "gone", GONE_AT_5 | NOT_DRAINED, [1, 5], 6, [inactive("rack-7", "master:8080")]),
    Case("FleetPulseWorkerInactive", "drained", GONE_AT_5 | DRAINED, [6, 30]),
    Case(
        "FleetPulseWorkerInactive", "back-within-a-minute",
        {
            f"fleetpulse_worker_up{W}": turning((1, 5), (0, 1), (1, 30)),
            f"fleetpulse_worker_last_heartbeat_timestamp_seconds{W}": rising(60),
        },
        [5, 6, 7, 20],
    ),
    Case("FleetPulseWorkerInactive", "goodbye", {f"fleetpulse_worker_up{W}": turning((1, 5), ("stale", 1))}, [6, 20]),
    Case(
        "FleetPulseWorkerInactive", "the-same-id-on-two-masters",
        {
            'fleetpulse_worker_up{worker_id="rack-7",instance="b:8080"}': turning((1, 5), (0, 60)),
            'fleetpulse_worker_up{worker_id="rack-7",instance="c:8080"}': flat(1),
            'fleetpulse_worker_last_heartbeat_timestamp_seconds{worker_id="rack-7",instance="b:8080"}': flat(240),
            'fleetpulse_worker_last_heartbeat_timestamp_seconds{worker_id="rack-7",instance="c:8080"}': rising(60),
        },
        [5], 6,
        [inactive("rack-7", "b:8080")],
    ),
]  # fmt: skip

DOWN_WITH_TASKS = [
    Case(
        "FleetPulseWorkerDownWithTasks", "gone", GONE_AT_5 | TASKS_UNTIL_5 | NOT_DRAINED, [1, 5], 6,
        [
            Firing(
                "critical", "workers", "Worker rack-7 went down with tasks on it",
                "Worker rack-7 became inactive while it ran tasks (1). Their attempts are lost. Tasks with retries "
                "left start again on other workers.",
                f"{API}/tasks | jq", WORKER, RACK_7,
            )
        ],
    ),
    Case("FleetPulseWorkerDownWithTasks", "long-ago", GONE_AT_5 | TASKS_UNTIL_5, [25, 40]),
    Case("FleetPulseWorkerDownWithTasks", "drained", GONE_AT_5 | TASKS_UNTIL_5 | DRAINED, [6, 10]),
    Case(
        "FleetPulseWorkerDownWithTasks", "idle",
        GONE_AT_5 | {f"fleetpulse_worker_running_tasks{W}": turning((0, 5), ("stale", 1))}, [6, 10],
    ),
    Case(
        "FleetPulseWorkerDownWithTasks", "busy-and-well",
        {f"fleetpulse_worker_up{W}": flat(1), f"fleetpulse_worker_running_tasks{W}": flat(3)}, [6, 30],
    ),
]  # fmt: skip

FIVE_TURNS = {f"fleetpulse_worker_up{W}": "1 0 1 0 1 0+0x30"}
FLAPPING = [
    Case(
        "FleetPulseWorkerFlapping", "five-turns", FIVE_TURNS | NOT_DRAINED, [4, 5], 6,
        [
            Firing(
                "warning", "workers", "Worker rack-7 is flapping",
                "Worker rack-7 became active or inactive 5 times in 30 minutes. Each time its attempts may be lost.",
                f"{API} | jq '{{hostname, is_active, heartbeats}}'", WORKER, RACK_7,
            )
        ],
    ),
    Case("FleetPulseWorkerFlapping", "four-turns", {f"fleetpulse_worker_up{W}": "1 0 1 0 1+0x30"}, [6, 20]),
    Case("FleetPulseWorkerFlapping", "drained", FIVE_TURNS | DRAINED, [6, 20]),
]  # fmt: skip

SKEW = f"fleetpulse_worker_clock_skew_seconds{W}"
MISSED = f"fleetpulse_worker_heartbeats_missed_total{W}"
HEARTBEATS = [
    Case(
        "FleetPulseWorkerHeartbeatsMissed", "one-in-nine", {MISSED: rising(1.4)} | NOT_DRAINED, [10, 18], 19,
        [
            Firing(
                "warning", "workers", "Heartbeats of worker rack-7 do not arrive",
                "0.02 heartbeats per second of worker rack-7 were sent but never arrived. Its network or its machine "
                "is overloaded, and it may soon be inactive.",
                f"{API} | jq '.heartbeats'", WORKER, RACK_7,
            )
        ],
    ),
    Case("FleetPulseWorkerHeartbeatsMissed", "one-in-eleven", {MISSED: rising(1.1)}, [19, 60]),
    Case("FleetPulseWorkerHeartbeatsMissed", "drained", {MISSED: rising(10)} | DRAINED, [19, 60]),
    Case(
        "FleetPulseHeartbeatsDropped", "1.1-percent",
        {"fleetpulse_heartbeats_received_total": rising(1000), "fleetpulse_heartbeats_dropped_total": rising(11)},
        [1, 10], 11,
        [
            Firing(
                "warning", "workers", "The master master:8080 drops heartbeats",
                "1.1% of the heartbeats that the master master:8080 accepted were replaced in a full queue by newer "
                "ones. The master cannot keep up, and shows outdated readings.",
                "curl -s http://master:8080/metrics | grep -E '^fleetpulse_(heartbeats|update_callback)'",
                "fleetpulse-master",
            )
        ],
    ),
    Case(
        "FleetPulseHeartbeatsDropped", "0.9-percent",
        {"fleetpulse_heartbeats_received_total": rising(1000), "fleetpulse_heartbeats_dropped_total": rising(9)},
        [11, 30],
    ),
]  # fmt: skip


def beats(kind: str, **by_bound: float) -> dict[str, str]:
    """The histogram of heartbeats with its growth per minute below each bound: b1 is 1.0, b2_5 is 2.5."""
    name = f"fleetpulse_heartbeat_{kind}_to_visible_seconds"
    bounds = {"b0_5": "0.5", "b1": "1.0", "b2_5": "2.5", "b5": "5.0", "inf": "+Inf"}
    buckets = {f'{name}_bucket{{le="{bounds[bound]}"}}': rising(by) for bound, by in by_bound.items()}
    return buckets | {f"{name}_count": rising(by_bound["inf"])}


IN_TIME = beats("receipt", b5=100, inf=100)
LATE = [
    Case(
        "FleetPulseHeartbeatsLate", "p99-above-a-second", beats("receipt", b0_5=900, b1=989, b2_5=1000, inf=1000),
        [1, 10], 11,
        [
            Firing(
                "warning", "workers", "Heartbeats are late on the master master:8080",
                "One heartbeat in a hundred takes 1.136s or longer from its receipt by the master master:8080 until it "
                "is visible.",
                "curl -s http://master:8080/metrics | grep '^fleetpulse_heartbeat_receipt_to_visible'",
                "fleetpulse-master",
            )
        ],
    ),
    Case("FleetPulseHeartbeatsLate", "p99-just-below", beats("receipt", b0_5=900, b1=1000, inf=1000), [11, 30]),
    Case(
        "FleetPulseMasterOverloaded", "behind-for-minutes",
        {"fleetpulse_grpc_backlog_age_seconds": turning((0, 5), (5.5, 60))}, [5, 10], 11,
        [
            Firing(
                "warning", "workers", "The master master:8080 is behind its workers",
                "For five minutes the oldest message of a worker has waited for 5.5s or longer on the master "
                "master:8080. It shows old readings, and starts tasks late.",
                "curl -s http://master:8080/metrics | grep -E '^fleetpulse_(grpc_backlog|heartbeats|worker_sessions)'",
                "fleetpulse-master",
            )
        ],
    ),
    Case(
        "FleetPulseMasterOverloaded", "behind-now-and-then",
        {"fleetpulse_grpc_backlog_age_seconds": turning((12, 4), (0, 1), (12, 4), (0, 60))}, [4, 9, 11, 30],
    ),
    Case("FleetPulseMasterOverloaded", "a-little-behind", {"fleetpulse_grpc_backlog_age_seconds": flat(4.5)}, [12, 30]),
    Case(
        "FleetPulseClockSkew", "one-clock-in-many", IN_TIME | beats("sent", b5=99.3, inf=100), [10, 23], 24,
        [
            Firing(
                "warning", "workers", "Clocks differ between workers and the master master:8080",
                "0.01 heartbeats per second seem to take more than 5 s to the master master:8080, which is not slow "
                "itself: the clocks of some workers are behind its clock, or their network delays heartbeats.",
                "timedatectl timesync-status", "fleetpulse-master",
            )
        ],
    ),
    Case("FleetPulseClockSkew", "now-and-then", IN_TIME | beats("sent", b5=99.5, inf=100), [24, 60]),
    Case(
        "FleetPulseClockSkew", "the-master-is-slow",
        beats("receipt", b5=90, inf=100) | beats("sent", b5=90, inf=100), [24, 60],
    ),
    Case(
        "FleetPulseClockAhead", "seconds", {SKEW: turning((0.25, 5), (5.5, 60))}, [5, 19], 20,
        [
            Firing(
                "warning", "workers", "The clock of worker rack-7 is ahead",
                "The clock of worker rack-7 is 5.5s ahead of the clock of the master master:8080.",
                "timedatectl timesync-status", WORKER, {"worker_id": "rack-7"},
            )
        ],
    ),
    Case("FleetPulseClockAhead", "just-below", {SKEW: flat(5)}, [24, 60]),
    Case("FleetPulseClockAhead", "behind", {SKEW: flat(-3600)}, [24, 60]),
]  # fmt: skip


def fleet(down: int, up: int, drained: int = 0) -> dict[str, str]:
    """Workers. The first ``down`` become silent at minute 5, and the first ``drained`` of these are drained."""
    ups = [turning((1, 5), (0, 60))] * down + [flat(1)] * up
    series = {f'fleetpulse_worker_up{{worker_id="w{number}"}}': values for number, values in enumerate(ups)}
    return series | {f'fleetpulse_worker_draining{{worker_id="w{number}"}}': flat(1) for number in range(drained)}


PARTLY_GONE = [
    Case(
        "FleetPulseFleetPartlyGone", "three-of-fourteen", fleet(3, 11), [1, 5], 6,
        [
            Firing(
                "critical", "workers", "A large part of the fleet is gone",
                "21.43% of the workers that the master master:8080 knows are inactive and not drained. The cause is "
                "probably a common one: a network, a power feed, a roll-out.",
                WHO_IS_GONE, "fleetpulse-fleet",
            )
        ],
    ),
    Case("FleetPulseFleetPartlyGone", "three-of-sixteen", fleet(3, 13), [6, 30]),
    Case("FleetPulseFleetPartlyGone", "two-of-five", fleet(2, 3), [6, 30]),
    Case("FleetPulseFleetPartlyGone", "one-of-three-is-drained", fleet(3, 4, drained=1), [6, 30]),
    Case(
        "FleetPulseReschedulingHeld", "held", {"fleetpulse_task_rescheduling_held": turning((0, 5), (1, 20))},
        [1, 5], 6,
        [
            Firing(
                "critical", "workers", "The master master:8080 holds back the rescheduling of lost workers' tasks",
                "Too many workers became inactive at once, or are not back since the master master:8080 started, so "
                "it keeps their attempts and reschedules no task for up to 10 minutes. A failure of its own network is "
                "the more likely cause.",
                WHO_IS_GONE, "fleetpulse-fleet",
            )
        ],
    ),
    Case("FleetPulseReschedulingHeld", "not-held", {"fleetpulse_task_rescheduling_held": flat(0)}, [6, 30]),
]  # fmt: skip

COLLECTOR = 'fleetpulse_worker_collector_success{worker_id="rack-7",collector="gpu"}'
DEGRADED = f"fleetpulse_worker_degraded{W}"
LEFT_OUT = 'fleetpulse_worker_left_out_devices{worker_id="rack-7",collector="filesystem"}'
REFUSED = f"fleetpulse_worker_refused{W}"
SCHEDULABLE = f"fleetpulse_worker_schedulable{W}"
ABILITIES = [
    Case(
        "FleetPulseWorkerCollectorFailing", "gpu", {COLLECTOR: turning((1, 5), (0, 60))} | NOT_DRAINED, [5, 19], 20,
        [
            Firing(
                "warning", "workers", "Worker rack-7 has no gpu readings",
                "The gpu collector of worker rack-7 fails. These readings are missing, and alerts about them cannot "
                "fire.",
                "curl -s http://master:8080/telemetry/rack-7 | jq '.collectors[] | select(.success | not)'", WORKER,
                {"worker_id": "rack-7", "collector": "gpu"},
            )
        ],
    ),
    Case("FleetPulseWorkerCollectorFailing", "all-well", {COLLECTOR: flat(1)}, [20, 60]),
    Case("FleetPulseWorkerCollectorFailing", "drained", {COLLECTOR: flat(0)} | DRAINED, [20, 60]),
    Case(
        "FleetPulseDevicesLeftOut", "filesystems", {LEFT_OUT: turning(("_", 5), (1, 60))} | NOT_DRAINED, [5, 19], 20,
        [
            Firing(
                "warning", "workers", "Worker rack-7 has too many devices to report",
                "The filesystem collector of worker rack-7 does not report 1 of its devices. Alerts about them cannot "
                "fire.",
                "curl -s http://master:8080/telemetry/rack-7 | jq '.left_out'", WORKER,
                {"worker_id": "rack-7", "collector": "filesystem"},
            )
        ],
    ),
    Case("FleetPulseDevicesLeftOut", "fits-again", {LEFT_OUT: turning((3, 10), (0, 60))} | NOT_DRAINED, [9, 60]),
    Case("FleetPulseDevicesLeftOut", "drained", {LEFT_OUT: flat(3)} | DRAINED, [20, 60]),
    Case(
        "FleetPulseWorkerCannotRunTasks", "no-docker", {SCHEDULABLE: turning((1, 5), (0, 60))} | NOT_DRAINED,
        [5, 14], 15,
        [
            Firing(
                "warning", "workers", "Worker rack-7 gets no tasks",
                "Worker rack-7 is active and not drained, but gets no tasks: its Docker Engine does not respond, or "
                "the worker sends heartbeats without a stream.",
                f"{API} | jq '.tasks'", WORKER, RACK_7,
            )
        ],
    ),
    Case(
        "FleetPulseWorkerRefused", "for-two-minutes", {REFUSED: turning((0, 5), (1, 60))}, [5, 6], 7,
        [
            Firing(
                "warning", "workers", "The master master:8080 refuses the heartbeats of worker rack-7",
                "The master master:8080 has refused every heartbeat of worker rack-7 for two minutes. Its readings are "
                "old, and alerts about them cannot fire.",
                f"{API} | jq '.heartbeats'", WORKER, RACK_7,
            )
        ],
    ),
    Case("FleetPulseWorkerRefused", "once", {REFUSED: turning((0, 5), (1, 1), (0, 60))}, [5, 6, 7, 20]),
    Case(
        "FleetPulseWorkerDegraded", "full-disk", {DEGRADED: turning((0, 5), (1, 60))} | NOT_DRAINED, [5, 9], 10,
        [
            Firing(
                "warning", "workers", "Tasks fail to start on worker rack-7",
                "Attempts fail on worker rack-7 before their command runs: its disk is full, or its Docker Engine "
                "fails. Tasks go elsewhere, and one task at a time tries the worker.",
                f"{API} | jq -r '.tasks.degraded_reason'", WORKER, RACK_7,
            )
        ],
    ),
    Case("FleetPulseWorkerDegraded", "healed", {DEGRADED: turning((0, 5), (1, 4), (0, 60))} | NOT_DRAINED, [5, 9, 20]),
    Case("FleetPulseWorkerDegraded", "drained", {DEGRADED: flat(1)} | DRAINED, [15, 60]),
    Case("FleetPulseWorkerCannotRunTasks", "can", {SCHEDULABLE: flat(1)}, [15, 60]),
    Case("FleetPulseWorkerCannotRunTasks", "drained", {SCHEDULABLE: flat(0)} | DRAINED, [15, 60]),
]  # fmt: skip

CASES = [*INACTIVE, *DOWN_WITH_TASKS, *FLAPPING, *HEARTBEATS, *LATE, *PARTLY_GONE, *ABILITIES]
