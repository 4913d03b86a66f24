"""What a submit may say. These types validate requests, and describe them.

Nothing is coerced but a whole number that is written as ``2.0``. Each field has its own rule, so that all errors are
found at once.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from master.api.image import MAX_IMAGE_LENGTH, check_image
from master.api.invalid import FieldError, InvalidRequest, validated
from master.tasks.ports import Idempotency
from master.tasks.records import TaskSpec

MAX_WORDS = 4096
MAX_ENTRIES = 1000
MAX_LABELS = 64
MAX_CONSTRAINTS = 32
MAX_CONSTRAINT_VALUES = 32
MAX_TEXTS_BYTES = 256 * 1024
"""Of all words of the command, and of all names and values of the environment."""

MAX_STRING_BYTES = 128 * 1024 - 1
"""The most that Linux takes as one argument, or as one ``NAME=value``."""

MAX_MEMORY_MIB = 16 * 1024 * 1024
MIN_MEMORY_MIB = 6
"""Docker refuses less."""

MIN_CPU_CORES = 0.01
"""Docker refuses less."""

MAX_TIMEOUT_SECONDS = 30 * 24 * 3600.0

SECRETS = frozenset({"env"})
"""Fields whose values are never shown again."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
IDEMPOTENCY_KEY_PATTERN = r"[\x20-\x7e]{1,128}"
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


def _image(reference: str) -> str:
    check_image(reference)
    return reference


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable, without control characters")
    return text


def _text(text: str) -> str:
    """Of a script or a key there may be several lines."""
    if (control := _CONTROL.search(text)) is not None:
        raise ValueError(f"must not hold control characters; it holds {control.group()!r}")
    if len(text.encode()) > MAX_STRING_BYTES:
        raise ValueError(f"must have at most {MAX_STRING_BYTES} bytes")
    return text


def _env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise ValueError("must be 1 to 255 ASCII letters, digits and '_', no digit first")
    return name


def _label_name(name: str) -> str:
    if not _LABEL_NAME.fullmatch(name):
        raise ValueError("must be 1 to 64 ASCII letters, digits and '_./-', a letter or '_' first")
    return name


def _words(command: Any) -> Any:
    """A string is split as a POSIX shell splits it into words; nothing in it is expanded, and no shell runs."""
    if not isinstance(command, str):
        if not isinstance(command, list):
            raise ValueError("must be a string or a list of strings")  # noqa: TRY004 - pydantic takes no TypeError
        return command
    try:
        return shlex.split(_text(command))
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    except ValueError as error:
        raise ValueError(_QUOTING.get(str(error), str(error))) from None


_QUOTING = {"No closing quotation": "has a quote that is not closed", "No escaped character": "ends with a backslash"}


def _command(words: list[str]) -> list[str]:
    if words and not words[0]:
        raise ValueError("must not begin with an empty word: that is the program")
    if sum(len(word.encode()) for word in words) > MAX_TEXTS_BYTES:
        raise ValueError(f"must have at most {MAX_TEXTS_BYTES} bytes in all")
    return words


def _env(env: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value.encode()) for name, value in env.items()) > MAX_TEXTS_BYTES:
        raise ValueError(f"must have at most {MAX_TEXTS_BYTES} bytes in all")
    return env


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _whole_gpus(number: Any) -> Any:
    if isinstance(number, float) and not number.is_integer():
        raise ValueError("must be a whole number: a task has each of its GPUs for itself")
    return _whole(number)


def _choice(values: Any) -> Any:
    if not isinstance(values, str | list):
        raise ValueError("must be a string or a list of strings")  # noqa: TRY004 - pydantic takes no TypeError
    return [values] if isinstance(values, str) else values


def _at_most(limit: int) -> BeforeValidator:
    """Counted before anything in it is looked at, so that a million errors cannot be made."""

    def check(value: Any) -> Any:
        if isinstance(value, dict | list) and len(value) > limit:
            raise ValueError(f"must have at most {limit} entries, not {len(value)}")
        return value

    return BeforeValidator(check)


Line = Annotated[str, Field(max_length=256), AfterValidator(_line)]
Text = Annotated[str, AfterValidator(_text)]
LabelName = Annotated[str, AfterValidator(_label_name)]
Choice = Annotated[
    list[Line],
    Field(min_length=1),
    _at_most(MAX_CONSTRAINT_VALUES),
    BeforeValidator(_choice, json_schema_input_type=str | list[str]),
]


class TaskSubmission(BaseModel):
    """The body of ``POST /api/tasks``."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    docker_image: Annotated[str, Field(json_schema_extra={"maxLength": MAX_IMAGE_LENGTH}), AfterValidator(_image)]
    name: Annotated[str, Field(max_length=128), AfterValidator(_line)] = ""
    command: Annotated[
        list[Text],
        AfterValidator(_command),
        _at_most(MAX_WORDS),
        BeforeValidator(_words, json_schema_input_type=str | list[str]),
    ] = []
    env: Annotated[
        dict[Annotated[str, AfterValidator(_env_name)], Text],
        Field(repr=False),
        AfterValidator(_env),
        _at_most(MAX_ENTRIES),
    ] = {}
    cpu_required: Annotated[float, Field(ge=MIN_CPU_CORES, le=1024)] = 1.0
    memory_required: Annotated[int, Field(ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB), BeforeValidator(_whole)] = 512
    gpu_required: Annotated[int, Field(ge=0, le=64), BeforeValidator(_whole_gpus)] = 0
    priority: Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole)] = 0
    max_retries: Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole)] = 0
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] | None = None
    labels: Annotated[dict[LabelName, Line], _at_most(MAX_LABELS)] = {}
    constraints: Annotated[dict[LabelName, Choice], _at_most(MAX_CONSTRAINTS)] = {}

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
        )


def submission(body: object, idempotency_key: str | None) -> tuple[TaskSpec, Idempotency | None]:
    """What the body and the header ask for. Raises ``InvalidRequest`` with all that is wrong with either."""
    errors = []
    if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        errors.append(FieldError("Idempotency-Key", "must be 1 to 128 printable ASCII characters"))
    if isinstance(body, dict) and len(body) > 2 * len(TaskSubmission.model_fields):
        raise InvalidRequest([*errors, FieldError("(body)", f"has {len(body)} fields; most of them are not known")])
    spec = validated(TaskSubmission, body, errors, SECRETS).spec()
    return spec, None if idempotency_key is None else Idempotency(idempotency_key, digest_of(spec))


def digest_of(spec: TaskSpec) -> str:
    """The same for the same wish, however it was written. What is left at its default adds nothing to it."""
    defaults: Mapping[str, object] = TaskSpec._field_defaults
    said = {name: value for name, value in spec._asdict().items() if name not in defaults or value != defaults[name]}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in said.items()}
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
