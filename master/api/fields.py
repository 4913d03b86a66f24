"""The kinds of value that a submit may hold: the rule of each, and how JSON Schema says it.

A schema cannot say everything: ``format`` names a rule that is told in words in ``docs/rest.md``.
"""

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fleetpulse.proto.image import IMAGE_PATTERN, MAX_IMAGE_LENGTH, check_image
from fleetpulse.proto.rules import ENV_NAME_PATTERN, USER_PATTERN, USER_RULE, is_user

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

_ENV_NAME = re.compile(ENV_NAME_PATTERN)
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}")
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_TEXT_PATTERN = f"^[^{_CONTROLS}]*$"


def _entries(most: int) -> Any:
    """Of a map whose names have a pattern, for its schema alone: no other names, and so many at most."""
    return Field(json_schema_extra={"additionalProperties": False, "maxProperties": most})


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


def _user(user: str) -> str:
    if not is_user(user):
        raise ValueError(f"must be {USER_RULE}")
    return user


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


Image = Annotated[
    str,
    Field(json_schema_extra={"maxLength": MAX_IMAGE_LENGTH, "pattern": f"^{IMAGE_PATTERN}$"}),
    AfterValidator(_image),
]
Name = Annotated[str, Field(max_length=128, json_schema_extra={"format": "printable"}), AfterValidator(_line)]
Line = Annotated[str, Field(max_length=256, json_schema_extra={"format": "printable"}), AfterValidator(_line)]
User = Annotated[
    str, Field(json_schema_extra={"pattern": f"^{USER_PATTERN}$", "format": "user"}), AfterValidator(_user)
]
Text = Annotated[
    str,
    Field(json_schema_extra={"pattern": _TEXT_PATTERN, "maxLength": MAX_STRING_BYTES}),
    AfterValidator(_text),
]
EnvName = Annotated[str, Field(json_schema_extra={"pattern": f"^{_ENV_NAME.pattern}$"}), AfterValidator(_env_name)]
LabelName = Annotated[
    str, Field(json_schema_extra={"pattern": f"^{_LABEL_NAME.pattern}$"}), AfterValidator(_label_name)
]

_ShellWords = Annotated[str, Field(json_schema_extra={"format": "shell-words"})]
_Program = {"type": "string", "pattern": _TEXT_PATTERN, "minLength": 1, "maxLength": MAX_STRING_BYTES}
_Words = Annotated[list[Text], Field(max_length=MAX_WORDS, json_schema_extra={"prefixItems": [_Program]})]
Command = Annotated[
    list[Text],
    AfterValidator(_command),
    _at_most(MAX_WORDS),
    BeforeValidator(_words, json_schema_input_type=_ShellWords | _Words),
]
Env = Annotated[
    dict[EnvName, Text], _entries(MAX_ENTRIES), Field(repr=False), AfterValidator(_env), _at_most(MAX_ENTRIES)
]
Labels = Annotated[dict[LabelName, Line], _entries(MAX_LABELS), _at_most(MAX_LABELS)]
Choice = Annotated[
    list[Line],
    Field(min_length=1),
    _at_most(MAX_CONSTRAINT_VALUES),
    BeforeValidator(
        _choice,
        json_schema_input_type=Line | Annotated[list[Line], Field(min_length=1, max_length=MAX_CONSTRAINT_VALUES)],
    ),
]
Constraints = Annotated[dict[LabelName, Choice], _entries(MAX_CONSTRAINTS), _at_most(MAX_CONSTRAINTS)]
Whole = BeforeValidator(_whole)
WholeGpus = BeforeValidator(_whole_gpus)
