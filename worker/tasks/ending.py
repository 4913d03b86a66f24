"""What the end of a container means for its attempt. Pure."""

import signal
from enum import Enum
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.engine import Container

_SIGNALLED = 128
"""A shell, docker-init and Docker itself give 128 + n as the exit code of what signal n ended."""

_INIT_FAILED = b"[FATAL tini ("
"""So begins the one line that docker-init, which is tini, writes when it cannot run the command."""


class Cause(Enum):
    """Why the worker ended a container."""

    STOPPED = "stopped"
    TIMEOUT = "timeout"


class ContainerExit(NamedTuple):
    """What is reported of an attempt that is over."""

    phase: "pb.AttemptPhase.ValueType"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    oom_killed: bool | None = None


def ending_of(container: Container, cause: Cause | None, last_output: bytes) -> ContainerExit:
    """``cause``: why the worker signalled it while it ran. ``last_output``: the last few hundred bytes of its log."""
    code, oom_killed = container.exit_code or 0, container.oom_killed
    if cause is None and _was_timed_out(container):
        cause = Cause.TIMEOUT  # by a worker that was killed before it could say so
    phase, reason, message = pb.ATTEMPT_PHASE_FAILED, "exit_code", f"the command ended with {_code_in_words(code)}"
    if cause is Cause.STOPPED:
        phase, reason, message = pb.ATTEMPT_PHASE_STOPPED, "stopped", f"stopped; it ended with {_code_in_words(code)}"
    elif cause is Cause.TIMEOUT:
        reason = "timeout"
        message = f"it ran for longer than its timeout_seconds, {container.timeout_seconds or 0:g}, and was ended"
    elif code == 0:
        phase, reason, message = pb.ATTEMPT_PHASE_COMPLETED, "", ""
    elif oom_killed:
        limit = f" of {container.memory_bytes / 2**20:g} MiB" if container.memory_bytes else ""
        reason = "out_of_memory"
        message = f"it needed more memory than its limit{limit}, and the kernel ended it; raise memory_required"
    elif last_output.startswith(_INIT_FAILED) and last_output.count(b"\n") == 1:
        reason, message = _cannot_be_run(last_output)
    return ContainerExit(phase, reason, message, code, oom_killed)


def may_lack_oom(container: Container) -> bool:
    """Whether it ended as one that needed too much memory does, and nothing says so."""
    was_killed = container.exit_code == _SIGNALLED + signal.SIGKILL
    return container.memory_bytes > 0 and was_killed and not container.oom_killed


def _was_timed_out(container: Container) -> bool:
    if container.timeout_seconds is None or container.started_at is None or container.finished_at is None:
        return False
    was_ended = container.exit_code in {_SIGNALLED + signal.SIGTERM, _SIGNALLED + signal.SIGKILL}
    return was_ended and container.finished_at - container.started_at >= container.timeout_seconds


def _cannot_be_run(last_output: bytes) -> tuple[str, str]:
    said = last_output.decode("utf-8", "replace").strip().partition("] ")[2]
    if "Exec format error" in said:
        return "image_invalid", f"the image is made for another kind of processor: {said}"
    return "command_not_found", f"the command cannot be run in this image: {said}"


def _code_in_words(code: int) -> str:
    try:
        return f"exit code {code} ({signal.Signals(code - _SIGNALLED).name})"
    except ValueError:
        return f"exit code {code}"
