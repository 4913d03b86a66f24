"""worker.tasks.attempt"""

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import ATTEMPT_REASONS
from fleetpulse.worker.tasks.attempt import StopCause, exit_update
from fleetpulse.worker.tasks.container_spec import AttemptKey
from fleetpulse.worker.tasks.engine import ContainerInfo, ContainerStatus

ENDED = ContainerInfo("c", AttemptKey("t", 1), ContainerStatus.ENDED, started_at=100.0, finished_at=130.0, exit_code=0)
INIT = b"[FATAL tini (7)] exec nosuch failed: %s\n"


@pytest.mark.parametrize(
    ("container", "cause", "output", "phase", "reason", "text"),
    [
        (ENDED, None, b"", pb.ATTEMPT_PHASE_COMPLETED, "", ""),
        (ENDED._replace(oom_killed=True), None, b"", pb.ATTEMPT_PHASE_COMPLETED, "", ""),
        (ENDED._replace(exit_code=7), None, b"", pb.ATTEMPT_PHASE_FAILED, "exit_code", "exit code 7"),
        (ENDED._replace(exit_code=139), None, b"", pb.ATTEMPT_PHASE_FAILED, "exit_code", "exit code 139 (SIGSEGV)"),
        (ENDED._replace(exit_code=255), None, b"", pb.ATTEMPT_PHASE_FAILED, "exit_code", "exit code 255"),
        (ENDED._replace(exit_code=137, oom_killed=True, memory_bytes=2**29), None, b"", pb.ATTEMPT_PHASE_FAILED,
         "out_of_memory", "512 MiB"),
        (ENDED._replace(exit_code=137, memory_bytes=2**29), None, b"", pb.ATTEMPT_PHASE_FAILED,
         "exit_code", "SIGKILL); perhaps it needed more memory than its limit of 512 MiB"),
        (ENDED._replace(exit_code=143), StopCause.STOPPED, b"", pb.ATTEMPT_PHASE_STOPPED, "stopped", "SIGTERM"),
        (ENDED, StopCause.STOPPED, b"", pb.ATTEMPT_PHASE_STOPPED, "stopped", "exit code 0"),
        (ENDED._replace(exit_code=143, timeout_seconds=30.0), StopCause.TIMEOUT, b"", pb.ATTEMPT_PHASE_FAILED,
         "timeout", "30"),
        (ENDED._replace(exit_code=137, timeout_seconds=30.0), None, b"", pb.ATTEMPT_PHASE_FAILED, "timeout", "30"),
        (ENDED._replace(exit_code=137, timeout_seconds=31.0), None, b"", pb.ATTEMPT_PHASE_FAILED,
         "exit_code", "SIGKILL"),
        (ENDED._replace(timeout_seconds=10.0), None, b"", pb.ATTEMPT_PHASE_COMPLETED, "", ""),
        (ENDED._replace(exit_code=127), None, INIT % b"No such file or directory", pb.ATTEMPT_PHASE_FAILED,
         "command_not_found", "exec nosuch failed: No such file or directory"),
        (ENDED._replace(exit_code=1), None, INIT % b"Exec format error", pb.ATTEMPT_PHASE_FAILED, "image_invalid",
         "another kind of processor"),
        (ENDED._replace(exit_code=127), None, b"sh: nosuch: not found\n", pb.ATTEMPT_PHASE_FAILED, "exit_code", "127"),
        (ENDED._replace(exit_code=1), None, b"hello\n" + INIT % b"x", pb.ATTEMPT_PHASE_FAILED, "exit_code", "1"),
    ],
)  # fmt: skip
def test_exit_update_has_phase_reason_and_message(
    container: ContainerInfo, cause: StopCause | None, output: bytes, phase: int, reason: str, text: str
) -> None:
    update = exit_update(container, cause, output)
    assert (update.phase, update.reason) == (phase, reason)
    assert text in update.message
    assert update.reason in ATTEMPT_REASONS | {""}
    assert (update.exit_code, update.oom_killed) == (container.exit_code, container.oom_killed)
