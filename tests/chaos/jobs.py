"""The jobs of a chaos run. Pure: the output and the exit code of each job are known in advance."""

from typing import Any, NamedTuple

_WIDE_CHARACTERS = 40_000
"""Docker splits a line at 16 KiB; a worker must not."""


class Job(NamedTuple):
    """One task: ``beats`` times ``lines`` lines of output, ``seconds`` of sleep in all, and a last line."""

    key: str
    """Idempotency key and name. The name finds a task whose submit got no answer."""

    beats: int = 1
    lines: int = 1
    width: int = 0
    """The width that lines are padded to."""

    seconds: float = 0.2
    exit_code: int = 0
    max_retries: int = 0
    stops_on_sigterm: bool = True
    """Whether SIGTERM ends it. Otherwise it ignores the signal."""

    cancel_after_seconds: float | None = None
    """Seconds after the answer to the submit."""

    submits_twice: bool = False
    """The client repeats the submit after the answer, as if the answer had been lost."""

    gives_up: bool = False
    """The client does not retry after a broken connection, so it never learns whether the task exists."""


def script(job: Job) -> str:
    """The script for ``sh -c`` of busybox."""
    trap = "trap 'exit 143' TERM; " if job.stops_on_sigterm else "trap '' TERM; "
    pause = job.seconds / job.beats
    return (
        f"{trap}beat=0; while [ $beat -lt {job.beats} ]; do line=0; while [ $line -lt {job.lines} ]; do "
        f"printf '{job.key} %d.%0{max(job.width, 1)}d\\n' $beat $line; line=$((line+1)); done; "
        # sleep runs in the background, because a shell handles no signal while a foreground command runs.
        f"sleep {pause:.3f} & wait $!; beat=$((beat+1)); done; "
        f"printf '{job.key} ends'; exit {job.exit_code}"
    )


def output(job: Job) -> bytes:
    """The output of an undisturbed run. The last line has no newline."""
    lines = [
        f"{job.key} {beat}.{line:0{max(job.width, 1)}d}\n" for beat in range(job.beats) for line in range(job.lines)
    ]
    return ("".join(lines) + f"{job.key} ends").encode()


def request(job: Job, image: str, cpu_cores: float) -> dict[str, Any]:
    """The body of the submit."""
    return {
        "docker_image": image,
        "name": job.key,
        "command": ["sh", "-c", script(job)],
        "cpu_required": cpu_cores,
        "memory_required": 32,
        "max_retries": job.max_retries,
    }


def wide(job: Job) -> Job:
    """The same job with lines so long that Docker splits them."""
    return job._replace(width=_WIDE_CHARACTERS)
