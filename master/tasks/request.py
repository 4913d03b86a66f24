"""The definition of a task's request: what its submitter may say.

``TaskRequest`` validates ``POST /api/tasks``, describes it in OpenAPI and is what the master knows of a request. The
columns of the store, the message to the worker and the answer of REST take their fields from it by name. To add a
field, write it below with its rule and its docstring; nothing else in the master has to change. Its values must be
ones that JSON gives back as they are (text, number, boolean, map), because the store keeps it in ``options``.

A schema cannot say every rule: a ``format`` names one that ``docs/rest.md`` explains.
"""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fleetpulse.proto.image import IMAGE_PATTERN, MAX_IMAGE_LENGTH, parse_image
from fleetpulse.proto.rules import (
    ENV_NAME_PATTERN,
    ENV_NAME_RULE,
    LABEL_NAME_PATTERN,
    MAX_CPU_CORES,
    MAX_ENV_ENTRIES,
    MAX_GPUS,
    MAX_MEMORY_MIB,
    MAX_TEXT_BYTES,
    MIN_CPU_CORES,
    MIN_MEMORY_MIB,
    USER_PATTERN,
    USER_RULE,
    Network,
    is_env_name,
    is_label_name,
    is_user,
)

SECRETS = frozenset({"env"})
"""Fields whose values no answer, log or ``repr`` shows."""

MAX_WORDS = 4096
MAX_LABELS = 64
MAX_CONSTRAINTS = 32
MAX_CONSTRAINT_VALUES = 32
MAX_STRING_BYTES = 128 * 1024 - 1
"""The longest argument, or ``NAME=value``, that Linux accepts."""

MAX_TIMEOUT_SECONDS = 30 * 24 * 3600.0

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_TEXT_PATTERN = f"^[^{_CONTROLS}]*$"
_QUOTING = {"No closing quotation": "has a quote that is not closed", "No escaped character": "ends with a backslash"}


def _must(is_valid: Callable[[str], bool], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(f"must be {rule}")
        return text

    return AfterValidator(check)


def _image(reference: str) -> str:
    parse_image(reference)
    return reference


def _text(text: str) -> str:
    if (control := _CONTROL.search(text)) is not None:
        raise ValueError(f"must not hold control characters; it holds {control.group()!r}")
    if len(text.encode()) > MAX_STRING_BYTES:
        raise ValueError(f"must have at most {MAX_STRING_BYTES} bytes")
    return text


def _strings(value: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a string or a list of strings")  # noqa: TRY004 - pydantic takes no TypeError
    return (value,) if isinstance(value, str) else tuple(value)


def _split_words(command: Any) -> Any:
    if not isinstance(command, str):
        return _strings(command)
    try:
        return tuple(shlex.split(_text(command)))
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    except ValueError as error:
        raise ValueError(_QUOTING.get(str(error), str(error))) from None


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must not be empty")
    return values


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0]:
        raise ValueError("must not begin with an empty word: that is the program")
    _check_size(words)
    return words


def _env(env: dict[str, str]) -> dict[str, str]:
    _check_size([*env, *env.values()])
    return env


def _check_size(texts: Iterable[str]) -> None:
    if sum(len(text.encode()) for text in texts) > MAX_TEXT_BYTES:
        raise ValueError(f"must have at most {MAX_TEXT_BYTES} bytes in all")


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _whole_gpus(number: Any) -> Any:
    if isinstance(number, float) and not number.is_integer():
        raise ValueError("must be a whole number: a task has each of its GPUs for itself")
    return _whole(number)


def _at_most(limit: int) -> BeforeValidator:
    """Counts before any entry is validated, so that a request cannot cause a million errors."""

    def check(value: Any) -> Any:
        if isinstance(value, dict | list | tuple) and len(value) > limit:
            raise ValueError(f"must have at most {limit} entries, not {len(value)}")
        return value

    return BeforeValidator(check)


def _schema(**members: Any) -> Any:
    """Members of the JSON schema alone: the rule that a validator enforces."""
    return Field(json_schema_extra=members)


def _map_schema(limit: int) -> Any:
    return _schema(additionalProperties=False, maxProperties=limit)


_LABEL_NAME_RULE = "1 to 64 ASCII letters, digits and '_./-', a letter or '_' first"
_Printable = _must(str.isprintable, "printable, without control characters")

Image = Annotated[str, _schema(maxLength=MAX_IMAGE_LENGTH, pattern=f"^{IMAGE_PATTERN}$"), AfterValidator(_image)]
Name = Annotated[str, Field(max_length=128), _schema(format="printable"), _Printable]
Line = Annotated[str, Field(max_length=256), _schema(format="printable"), _Printable]
User = Annotated[str, _schema(pattern=f"^{USER_PATTERN}$", format="user"), _must(is_user, USER_RULE)]
Text = Annotated[str, _schema(pattern=_TEXT_PATTERN, maxLength=MAX_STRING_BYTES), AfterValidator(_text)]
EnvName = Annotated[str, _schema(pattern=f"^{ENV_NAME_PATTERN}$"), _must(is_env_name, ENV_NAME_RULE)]
LabelName = Annotated[str, _schema(pattern=f"^{LABEL_NAME_PATTERN}$"), _must(is_label_name, _LABEL_NAME_RULE)]

_PROGRAM = {"type": "string", "pattern": _TEXT_PATTERN, "minLength": 1, "maxLength": MAX_STRING_BYTES}
_ShellWords = Annotated[str, _schema(format="shell-words")]
_Words = Annotated[list[Text], Field(max_length=MAX_WORDS), _schema(prefixItems=[_PROGRAM])]
_SplitWords = BeforeValidator(_split_words, json_schema_input_type=_ShellWords | _Words)
Command = Annotated[tuple[Text, ...], AfterValidator(_command), _at_most(MAX_WORDS), _SplitWords]
Env = Annotated[dict[EnvName, Text], _map_schema(MAX_ENV_ENTRIES), AfterValidator(_env), _at_most(MAX_ENV_ENTRIES)]
Labels = Annotated[dict[LabelName, Line], _map_schema(MAX_LABELS), _at_most(MAX_LABELS)]

_Lines = Annotated[list[Line], Field(min_length=1, max_length=MAX_CONSTRAINT_VALUES)]
_OneOrMore = BeforeValidator(_strings, json_schema_input_type=Line | _Lines)
Constraint = Annotated[tuple[Line, ...], AfterValidator(_not_empty), _at_most(MAX_CONSTRAINT_VALUES), _OneOrMore]
Constraints = Annotated[dict[LabelName, Constraint], _map_schema(MAX_CONSTRAINTS), _at_most(MAX_CONSTRAINTS)]
Whole = BeforeValidator(_whole)
WholeGpus = BeforeValidator(_whole_gpus)


class TaskRequest(BaseModel):
    """The body of ``POST /api/tasks``."""

    # Nothing is coerced but a whole number that is written as 2.0. Each field has its own rule, so that all errors are
    # found at once.
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip

    docker_image: Image
    """A reference as Docker has it, `[registry[:port]/]path[:tag][@digest]`, with at most 255 characters before the
    tag; no URL, no image id."""
    name: Name = ""
    """For people."""
    command: Command = ()
    """Words, or a string that is split into words as a POSIX shell splits it. No shell runs and nothing is expanded.
    256 KiB at most; if there is none, the image says what runs."""
    env: Env = {}
    """The environment; 256 KiB at most. The values are secret: no answer shows them. `NVIDIA_*` and
    `AMD_VISIBLE_DEVICES` are the worker's."""
    cpu_required: Annotated[float, Field(ge=MIN_CPU_CORES, le=MAX_CPU_CORES)] = 1.0
    """Cores that the task gets at most, and that the worker must have free."""
    memory_required: Annotated[int, Field(ge=MIN_MEMORY_MIB, le=MAX_MEMORY_MIB), Whole] = 512
    """MiB, the limit at which the task is killed."""
    gpu_required: Annotated[int, Field(ge=0, le=MAX_GPUS), WholeGpus] = 0
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
    network: Network | None = None
    """What the container is connected to: nothing but itself, or a bridge of all tasks of the worker."""

    @property
    def memory_bytes(self) -> int:
        return self.memory_required * 1024 * 1024

    def digest(self) -> str:
        """Returns a SHA-256 that is the same for the same request, however it was written.

        Fields with their default values are left out, so that fields of later versions change no stored digest.
        """
        fields = type(self).model_fields
        given = {name: value for name, value in self.__dict__.items() if value != fields[name].default}
        return hashlib.sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, dict.fromkeys(value, "***") if name in SECRETS else value


DEFAULTS: Mapping[str, Any] = {
    name: field.default for name, field in TaskRequest.model_fields.items() if not field.is_required()
}


_NO_NAMES: set[str] = set()


def request_from(values: Mapping[str, Any]) -> TaskRequest:
    """Returns a request of values that were validated before, as the store has them; those that it lacks get their
    defaults. Four times as fast as ``model_construct``: a page holds a thousand."""
    request = TaskRequest.__new__(TaskRequest)
    object.__setattr__(request, "__dict__", {**DEFAULTS, **values})
    object.__setattr__(request, "__pydantic_fields_set__", _NO_NAMES)
    object.__setattr__(request, "__pydantic_extra__", None)
    object.__setattr__(request, "__pydantic_private__", None)
    return request
