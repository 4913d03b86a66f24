"""What Docker's errors mean, in one table. The tree that they are mapped to is in ``tasks.engine``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound, StreamParseError

from fleetpulse.worker.tasks.engine import EngineError, EngineRefused, EngineUnavailable, NoSuchContainer

_MAX_LENGTH = 500


class _Meaning(NamedTuple):
    """Of an answer that has all of these words in it."""

    words: tuple[str, ...]
    reason: str
    explanation: str


_MEANINGS = (
    _Meaning(("no space left on device",), "disk_full",
             "the disk that Docker keeps its data on is full; free some, with `docker system prune` for one"),
    _Meaning(("exec format error",), "image_invalid", "the image is made for another kind of processor"),
    _Meaning(("executable file not found",), "command_not_found", "the image has no such program"),
    _Meaning(("unable to start container process", "no such file or directory"), "command_not_found",
             "the image has no such program"),
    _Meaning(("unable to start container process", "permission denied"), "command_not_found",
             "the program cannot be executed"),
    _Meaning(("no command specified",), "command_not_found", "the image names no command; give one"),
    _Meaning(("invalid reference format",), "image_invalid", "this is no reference of an image"),
    _Meaning(("must be lowercase",), "image_invalid", "this is no reference of an image"),
    _Meaning(("no matching manifest",), "image_invalid", "the image is not made for this kind of machine"),
    _Meaning(("does not match the specified platform",), "image_invalid", "the image is not for this kind of machine"),
    _Meaning(("could not select device driver",), "container_failed",
             "Docker cannot hand out GPUs here; install the NVIDIA Container Toolkit on this worker"),
)  # fmt: skip

_ABSENT = (
    "pull access denied",
    "manifest unknown",
    "no such image",
    "not found",
    "unauthorized",
    "denied",
    "no basic auth",
)
_ADVICE_ON_ABSENT = "no registry gives it; check its name, and that this worker may pull it"

_PULL_MEANINGS = (
    *(_Meaning((word,), "image_not_found", _ADVICE_ON_ABSENT) for word in _ABSENT),
    _Meaning(("toomanyrequests",), "image_pull_failed", "the registry limits how often this worker may pull"),
    _Meaning((), "image_pull_failed", "the image could not be pulled; can this worker reach the registry?"),
)


def refused(answer: str, *, pulling: bool = False) -> EngineRefused:
    """What an answer of the engine means."""
    text = " ".join(answer.split())[:_MAX_LENGTH]
    lower = text.lower()
    for meaning in _MEANINGS + (_PULL_MEANINGS if pulling else ()):
        if all(word in lower for word in meaning.words):
            return EngineRefused(f"{meaning.explanation} ({text})", meaning.reason)
    return EngineRefused(f"the engine refused: {text}")


@contextmanager
def mapped(host: str, container_id: str = "", *, pulling: bool = False) -> Iterator[None]:
    """Raise an ``EngineError`` in place of what the SDK and what is below it raise."""
    try:
        yield
    except EngineError:
        raise
    except NotFound as error:
        if container_id and "no such container" in str(error.explanation).lower():
            raise NoSuchContainer(container_id) from error
        raise refused(str(error.explanation), pulling=True) from error
    except APIError as error:
        raise refused(str(error.explanation or error), pulling=pulling) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, StreamParseError) as error:
        raise unavailable(host, error) from error
    except DockerException as error:  # the SDK itself will not: an engine that is too old, a login that cannot be read
        raise refused(str(error), pulling=pulling) from error


def unavailable(host: str, error: BaseException) -> EngineUnavailable:
    """There was no answer."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return EngineUnavailable(f"no Docker Engine answers at {host}: {' '.join(why.split())[:_MAX_LENGTH]}")
