"""What a task of a chaos run does. Pure: its output and exit code are known beforehand, byte by byte."""

from typing import Any, NamedTuple

_WIDE_CHARACTERS = 40_000
"""Docker splits a line at 16 KiB, and a worker must not."""


class Job(NamedTuple):
    """One task: ``lines`` lines of output in each of ``beats`` beats, ``seconds`` of sleep in all, one line more."""

    key: str
    """Idempotency key and name: by it the task is found when no answer to its submit came."""

    beats: int = 1
    lines: int = 1
    width: int = 0
    """Characters that every line is filled up to."""

    seconds: float = 0.2
    exit_code: int = 0
    max_retries: int = 0
    obedient: bool = True
    """Whether it ends on SIGTERM; otherwise it goes on as if nothing had been said."""

    cancel_after_seconds: float | None = None
    """After the submit was answered."""

    asks_twice: bool = False
    """The submitter asks once more after the answer, as one whose answer was lost on the way would."""

    gives_up: bool = False
    """The submitter does not ask again when the connection broke, and so never learns whether the task is there."""


def script(job: Job) -> str:
    """For ``sh -c``, of busybox."""
    trap = "trap 'exit 143' TERM; " if job.obedient else "trap '' TERM; "
    pause = job.seconds / job.beats
    return (
        f"{trap}beat=0; while [ $beat -lt {job.beats} ]; do line=0; while [ $line -lt {job.lines} ]; do "
        f"printf '{job.key} %d.%0{max(job.width, 1)}d\\n' $beat $line; line=$((line+1)); done; "
        # In the background, because a shell waits for a command in the foreground before it hears a signal.
        f"sleep {pause:.3f} & wait $!; beat=$((beat+1)); done; "
        f"printf '{job.key} ends'; exit {job.exit_code}"
    )


def output(job: Job) -> bytes:
    """All that an undisturbed run prints. The last line has no newline."""
    lines = [
        f"{job.key} {beat}.{line:0{max(job.width, 1)}d}\n" for beat in range(job.beats) for line in range(job.lines)
    ]
    return ("".join(lines) + f"{job.key} ends").encode()


def request(job: Job, image: str, cpu_cores: float) -> dict[str, Any]:
    """The body of its submit."""
    return {
        "docker_image": image,
        "name": job.key,
        "command": ["sh", "-c", script(job)],
        "cpu_required": cpu_cores,
        "memory_required": 32,
        "max_retries": job.max_retries,
    }


def wide(job: Job) -> Job:
    """The same with lines that Docker splits."""
    return job._replace(width=_WIDE_CHARACTERS)
