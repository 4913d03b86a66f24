"""What a submit may say. These types validate requests, and describe them.

Nothing is coerced but a whole number that is written as ``2.0``. Each field has its own rule, so that all errors are
found at once.
"""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from fleetpulse.master.api.fields import (
    MAX_MEMORY_MIB,
    MAX_TIMEOUT_SECONDS,
    MIN_CPU_CORES,
    MIN_MEMORY_MIB,
    Command,
    Constraints,
    Env,
    Image,
    Labels,
    Name,
    User,
    Whole,
    WholeGpus,
)
from fleetpulse.master.api.problems import FieldProblem, InvalidRequest
from fleetpulse.master.api.validation import validated
from fleetpulse.master.tasks.ports import Idempotency
from fleetpulse.master.tasks.records import TaskSpec

SECRETS = frozenset({"env"})
"""Fields whose values are never shown again."""

IDEMPOTENCY_KEY_PATTERN = r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?"
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


class TaskSubmission(BaseModel):
    """The body of ``POST /api/tasks``."""

    model_config = ConfigDict(
        strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    docker_image: Image
    """A reference as Docker has it, `[registry[:port]/]path[:tag][@digest]`, with at most 255 characters before the
    tag; no URL, no image id."""
    name: Name = ""
    """For people."""
    command: Command = []
    """Words, or a string that is split into words as a POSIX shell splits it. No shell runs and nothing is expanded.
    256 KiB at most; if there is none, the image says what runs."""
    env: Env = {}
    """The environment; 256 KiB at most. The values are secret: no answer shows them."""
    cpu_required: Annotated[float, Field(ge=MIN_CPU_CORES, le=1024)] = 1.0
    """Cores that the task gets at most, and that the worker must have free."""
    memory_required: Annotated[int, Field(ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB), Whole] = 512
    """MiB, the limit at which the task is killed."""
    gpu_required: Annotated[int, Field(ge=0, le=64), WholeGpus] = 0
    """Whole devices, each for this task alone."""
    priority: Annotated[int, Field(ge=0, le=100), Whole] = 0
    """The highest goes first, then the oldest."""
    max_retries: Annotated[int, Field(ge=0, le=100), Whole] = 0
    """How often a failed attempt is followed by another."""
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] | None = None
    """From the container's start; null: no limit."""
    labels: Labels = {}
    """The submitter's own; they decide nothing."""
    constraints: Constraints = {}
    """Labels of a worker, each with the value, or the values, that it may have; `worker_id` counts as a label."""

    read_only: bool | None = None
    """Whether the container's root filesystem is read-only. Null, here and below: as the policies of the master and of
    the worker have it."""
    user: User | None = None
    """Whom the command runs as: USER or USER:GROUP, each a number or a name in the image."""
    network: Literal["none", "bridge"] | None = None
    """What the container is connected to: nothing but itself, or Docker's bridge."""

    def spec(self) -> TaskSpec:
        """What was asked for, as the rest of the master knows it."""
        return TaskSpec(
            docker_image=self.docker_image,
            name=self.name,
            command=tuple(self.command),
            env=MappingProxyType(self.env),
            cpu_required=self.cpu_required,
            memory_required=self.memory_required,
            gpu_required=self.gpu_required,
            priority=self.priority,
            max_retries=self.max_retries,
            timeout_seconds=self.timeout_seconds,
            labels=MappingProxyType(self.labels),
            constraints=MappingProxyType({name: tuple(values) for name, values in self.constraints.items()}),
            read_only=self.read_only,
            user=self.user,
            network=self.network,
        )


def submission(body: object, idempotency_key: str | None) -> tuple[TaskSpec, Idempotency | None]:
    """What the body and the header ask for. Raises ``InvalidRequest`` with all that is wrong with either."""
    errors = []
    if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        errors.append(FieldProblem("Idempotency-Key", "must be 1 to 128 printable ASCII characters"))
    if isinstance(body, dict) and len(body) > 2 * len(TaskSubmission.model_fields):
        raise InvalidRequest([*errors, FieldProblem("(body)", f"has {len(body)} fields; most of them are not known")])
    spec = validated(TaskSubmission, body, errors, SECRETS).spec()
    return spec, None if idempotency_key is None else Idempotency(idempotency_key, digest_of(spec))


def digest_of(spec: TaskSpec) -> str:
    """The same for the same wish, however it was written. What is left at its default adds nothing to it."""
    defaults: Mapping[str, object] = TaskSpec._field_defaults
    said = {name: value for name, value in spec._asdict().items() if name not in defaults or value != defaults[name]}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in said.items()}
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
