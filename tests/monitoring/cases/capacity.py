"""Cases for monitoring/rules/capacity.yml."""

from collections.abc import Sequence

from tests.monitoring.promtool import Case, Firing, flat, rising, turning

Series = dict[str, str]
W = '{worker_id="rack-7"}'
FS = '{worker_id="rack-7",mountpoint="/data"}'
GPU = '{worker_id="rack-7",gpu="1",uuid="GPU-a"}'
IDENTITY = {
    'fleetpulse_worker_info{worker_id="rack-7",hostname="rack-7.example.com",version="0.1.0"}': flat(1),
    f"fleetpulse_worker_up{W}": flat(1),
    f"fleetpulse_worker_draining{W}": flat(0),
}
DRAINED = IDENTITY | {f"fleetpulse_worker_draining{W}": flat(1)}
SSH = "ssh rack-7.example.com"
WORKER = "fleetpulse-worker?var-worker=rack-7"
GPUS = "fleetpulse-gpus?var-worker=rack-7"
DU = f"{SSH} du -xh --max-depth=2 /data | sort -h | tail -20"


def pair(alert: str, first: int, beyond: Series, within: Series, firing: Firing) -> Sequence[Case]:
    """Cases that fire from minute ``first`` on beyond the limit, but not within it nor for a drained worker."""
    return [
        Case(alert, "beyond", IDENTITY | beyond, [1, first - 1], first, [firing]),
        Case(alert, "within", IDENTITY | within, [first, first + 30]),
        Case(alert, "drained", DRAINED | beyond, [first, first + 30]),
    ]


def firing(
    summary: str, description: str, command: str, dashboard: str = WORKER, severity: str = "warning", **labels: str
) -> Firing:
    labels = {"worker_id": "rack-7", "hostname": "rack-7.example.com", **labels}
    return Firing(severity, "capacity", summary, description, command, dashboard, labels)


def cpu(usage: float, load: float) -> dict[str, str]:
    return {
        f"fleetpulse_worker_cpu_usage_ratio{W}": flat(usage),
        f"fleetpulse_worker_load5{W}": flat(load),
        f"fleetpulse_worker_cpu_logical_cores{W}": flat(16),
    }


def memory(ratio: float) -> dict[str, str]:
    return {
        f"fleetpulse_worker_memory_used_bytes{W}": flat(1000 * ratio),
        f"fleetpulse_worker_memory_size_bytes{W}": flat(1000),
    }


def filesystem(used: str) -> dict[str, str]:
    """Of a worker that does not say what is available."""
    return {
        f"fleetpulse_worker_filesystem_used_bytes{FS}": used,
        f"fleetpulse_worker_filesystem_size_bytes{FS}": flat(1000),
    }


def reserved(used: int, available: int) -> dict[str, str]:
    """The rest of the 1000 is reserved for root."""
    return filesystem(flat(used)) | {f"fleetpulse_worker_filesystem_available_bytes{FS}": flat(available)}


def gpu_memory(used: float) -> dict[str, str]:
    return {
        f"fleetpulse_worker_gpu_memory_used_bytes{GPU}": flat(used),
        f"fleetpulse_worker_gpu_memory_size_bytes{GPU}": flat(1000),
    }


CPU = [
    *pair(
        "FleetPulseWorkerCpuSaturated", 15, cpu(0.96, 26), cpu(0.94, 26),
        firing(
            "Worker rack-7 has too few cores for its work",
            "CPU of worker rack-7 was in use for 96% of the time, and more processes than cores wait to run.",
            f"{SSH} top -b -n 1 -o %CPU | head -20",
        ),
    ),
    Case("FleetPulseWorkerCpuSaturated", "nothing-waits", IDENTITY | cpu(1.0, 23), [15, 60]),
]  # fmt: skip

STALLED = f"fleetpulse_worker_pressure_memory_stalled_seconds_total{W}"
MEMORY = [
    *pair(
        "FleetPulseWorkerMemoryLow", 10, memory(0.96), memory(0.94),
        firing(
            "Worker rack-7 is short of memory",
            "96% of the memory of worker rack-7 is in use. The kernel may soon kill the largest process.",
            f"{SSH} ps -eo pid,rss,comm --sort=-rss | head -20",
        ),
    ),
    *pair(
        # Seconds a minute. The rate of five minutes takes some to rise.
        "FleetPulseWorkerMemoryPressure", 14, {STALLED: rising(9)}, {STALLED: rising(5)},
        firing(
            "Worker rack-7 waits for memory",
            "For 15% of the time everything on worker rack-7 waited for memory. It swaps, or reads its programs from "
            "disk again and again.",
            f"{SSH} ps -eo pid,rss,maj_flt,comm --sort=-rss | head -20",
        ),
    ),
]  # fmt: skip

INODES = f"fleetpulse_worker_filesystem_inodes_used_ratio{FS}"
FS_ERROR = f"fleetpulse_worker_filesystem_error{FS}"
FS_READ_ONLY = f"fleetpulse_worker_filesystem_read_only{FS}"
DISK_ERROR = 'fleetpulse_worker_disk_error{worker_id="rack-7",device="sdb"}'
FILESYSTEMS = [
    *pair(
        # At minute 45 it is at 672 of 1000, and 1056 is 4 hours away. At 1 a minute it would be 960.
        "FleetPulseFilesystemFillsIn4Hours", 45, filesystem(rising(1.6, 600)), filesystem(rising(1, 600, 75)),
        firing(
            "/data of worker rack-7 will be full within 4 hours",
            "/data of worker rack-7 is 67.2% full, and at the pace of the last hour it is full within 4 hours.",
            DU, mountpoint="/data",
        ),
    ),
    Case("FleetPulseFilesystemFillsIn4Hours", "far-from-full", IDENTITY | filesystem(rising(2, 500)), [40, 45, 49]),
    Case(
        "FleetPulseFilesystemFillsIn4Hours", "new-and-being-filled",
        IDENTITY | filesystem(turning(("_", 30)) + " 600+9x20"), [46, 50],
    ),
    *pair(
        "FleetPulseFilesystemNearlyFull", 15, filesystem(flat(920)), filesystem(flat(890)),
        firing(
            "/data of worker rack-7 is nearly full", "/data of worker rack-7 is 92% full.", DU, mountpoint="/data"
        ),
    ),
    *pair(
        "FleetPulseFilesystemFull", 5, filesystem(flat(980)), filesystem(flat(960)),
        firing(
            "/data of worker rack-7 is full",
            "/data of worker rack-7 is 98% full. Images cannot be pulled, containers fail, logs are lost.",
            f"{SSH} docker system df", severity="critical", mountpoint="/data",
        ),
    ),
    Case(
        "FleetPulseFilesystemFull", "for-its-users", IDENTITY | reserved(918, 0), [1, 4], 5,
        [
            firing(
                "/data of worker rack-7 is full",
                "/data of worker rack-7 is 100% full. Images cannot be pulled, containers fail, logs are lost.",
                f"{SSH} docker system df", severity="critical", mountpoint="/data",
            )
        ],
    ),
    Case("FleetPulseFilesystemFull", "with-space-for-its-users", IDENTITY | reserved(970, 50), [5, 60]),
    *pair(
        "FleetPulseFilesystemInodesLow", 15, {INODES: flat(0.96)}, {INODES: flat(0.94)},
        firing(
            "/data of worker rack-7 has few inodes left",
            "96% of the inodes of /data of worker rack-7 are in use. Without one no file can be made, however much "
            "space is left.",
            f"{SSH} du -x --inodes --max-depth=3 /data | sort -n | tail -20", mountpoint="/data",
        ),
    ),
    *pair(
        "FleetPulseFilesystemError", 5, {FS_ERROR: flat(1)}, {FS_ERROR: flat(0)},
        firing(
            "/data of worker rack-7 cannot be read",
            "The filesystem at /data of worker rack-7 gives an error, or does not answer. Processes that use it fail "
            "or hang.",
            "curl -s http://master:8080/telemetry/rack-7 | jq '.filesystems[] | select(.state == \"error\")'",
            mountpoint="/data",
        ),
    ),
    *pair(
        "FleetPulseDiskError", 5, {DISK_ERROR: flat(1)}, {DISK_ERROR: flat(0)},
        firing(
            "Disk sdb of worker rack-7 fails",
            "The kernel has given up disk sdb of worker rack-7, or the disk says that it is worn out.",
            "curl -s http://master:8080/telemetry/rack-7 | jq '.disk_devices[] | select(.state == \"error\")'",
            device="sdb",
        ),
    ),
    *pair(
        "FleetPulseFilesystemReadOnly", 5, {FS_READ_ONLY: flat(1)}, {FS_READ_ONLY: flat(0)},
        firing(
            "/data of worker rack-7 is read-only",
            "The filesystem at /data of worker rack-7 was writable, or is to be mounted so, and takes no writes. "
            "Usually the kernel stopped writing after an error of the disk.",
            f"{SSH} \"sudo dmesg -T | grep -iE 'i/o error|ext4|xfs|btrfs|nvme|ata' | tail -20\"",
            severity="critical", mountpoint="/data",
        ),
    ),
]  # fmt: skip

INFO = 'fleetpulse_worker_gpu_info{{worker_id="rack-7",gpu="{}",uuid="GPU-a",name="NVIDIA H100"}}'
LOST_AT_5 = {INFO.format(1): turning((1, 5), ("stale", 1))}
HOT = f"fleetpulse_worker_gpu_temperature_celsius{GPU}"
UP, LOST = (f"fleetpulse_worker_gpu_{state}{GPU}" for state in ("up", "lost"))
ON_GPU = {"gpu": "1", "uuid": "GPU-a"}
GPU_CASES = [
    *pair(
        "FleetPulseGpuHot", 10, {HOT: flat(87)}, {HOT: flat(84)},
        firing(
            "GPU 1 of worker rack-7 is hot",
            "GPU 1 (GPU-a) of worker rack-7 has 87 °C. It reduces its speed to protect itself, or will soon.",
            f"{SSH} nvidia-smi -q -d TEMPERATURE,PERFORMANCE -i GPU-a", GPUS, **ON_GPU,
        ),
    ),
    *pair(
        "FleetPulseGpuMemoryNearlyFull", 30, gpu_memory(980), gpu_memory(960),
        firing(
            "Memory of GPU 1 of worker rack-7 is nearly full",
            "98% of the memory of GPU 1 (GPU-a) of worker rack-7 is in use. Further allocations fail.",
            f"{SSH} nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv -i GPU-a", GPUS, "info", **ON_GPU,
        ),
    ),
    *pair(
        "FleetPulseGpuLost", 2, {UP: flat(0), LOST: flat(1)}, {UP: flat(0), LOST: flat(0)},
        firing(
            "GPU 1 of worker rack-7 is lost",
            "GPU 1 (GPU-a) of worker rack-7 is off the bus, or its driver no longer counts it.",
            f'{SSH} "nvidia-smi -L; sudo dmesg | grep -i xid | tail"', GPUS, **ON_GPU,
        ),
    ),
    *pair(
        "FleetPulseGpuError", 5, {UP: flat(0), LOST: flat(0)}, {UP: flat(0), LOST: flat(1)},
        firing(
            "GPU 1 of worker rack-7 does not answer",
            "GPU 1 (GPU-a) of worker rack-7 is there, and its driver gives no readings of it.",
            "curl -s http://master:8080/telemetry/rack-7 | jq '.gpus[] | {index, uuid, state, state_reason}'",
            GPUS, **ON_GPU,
        ),
    ),
    Case("FleetPulseGpuError", "answers", IDENTITY | {UP: flat(1), LOST: flat(0)}, [5, 30]),
    *pair(
        "FleetPulseGpuMissing", 10, LOST_AT_5, LOST_AT_5 | {INFO.format(0): turning(("_", 5), (1, 60))},
        firing(
            "Worker rack-7 has lost GPU 1",
            "Worker rack-7 is active and no longer reports GPU 1 (NVIDIA H100, GPU-a), which it had within the last "
            "hour.",
            f'{SSH} "nvidia-smi -L; sudo dmesg | grep -i xid | tail"', GPUS, name="NVIDIA H100", **ON_GPU,
        ),
    ),
    Case(
        "FleetPulseGpuMissing", "the-whole-worker-is-gone",
        IDENTITY | LOST_AT_5 | {f"fleetpulse_worker_up{W}": turning((1, 5), (0, 60))}, [10, 30],
    ),
]  # fmt: skip

CASES = [*CPU, *MEMORY, *FILESYSTEMS, *GPU_CASES]
