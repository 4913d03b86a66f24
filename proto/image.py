"""Parses references to Docker images: ``[registry[:port]/]path[:tag][@digest]``.

The grammar is that of https://pkg.go.dev/github.com/distribution/reference; an error says which part is wrong.
"""

import re
from typing import NamedTuple

DOCKER_HUB = "docker.io"
MAX_IMAGE_LENGTH = 512
MAX_REPOSITORY_LENGTH = 255

DIGEST_PATTERN = r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*")
_IPV6_HOST = re.compile(r"\[[0-9A-Fa-f:]+\]")
_PORT = re.compile(r"[0-9]{1,5}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(DIGEST_PATTERN)
_IMAGE_ID = re.compile(r"(?:sha(?:256|384|512):)?[0-9a-f]{64}")

_NAMESPACE = r"[a-z0-9]+(?:(?:__?|-+)[a-z0-9]+)*"  # with a dot it would be a registry
_PORT_NUMBER = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
IMAGE_PATTERN = (
    rf"(?:(?:(?:{_HOST.pattern}|\[[0-9A-Fa-f]*:[0-9A-Fa-f:]*\])(?::{_PORT_NUMBER})?|{_NAMESPACE})/(?:{_COMPONENT.pattern}/)*)?"
    rf"{_COMPONENT.pattern}(?::{_TAG.pattern})?"
    rf"(?:@{DIGEST_PATTERN})?"
)
"""For a schema. Does not check the length, nor that the reference is no image id."""


class Reference(NamedTuple):
    """A full reference, as Docker understands it: ``busybox`` is ``docker.io/library/busybox:latest``."""

    registry: str
    path: str
    tag: str
    """Empty with a digest: Docker ignores the tag then."""
    digest: str

    @property
    def name(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse_image(reference: str) -> Reference:
    """Returns the full reference. Raises ``ValueError`` with what is wrong."""
    if not reference:
        raise ValueError("must not be empty")
    if len(reference) > MAX_IMAGE_LENGTH:
        raise ValueError(f"must have at most {MAX_IMAGE_LENGTH} characters, not {len(reference)}")
    if not (reference.isascii() and reference.isprintable()) or " " in reference:
        raise ValueError("must be printable ASCII without spaces")
    if "://" in reference:
        raise ValueError("must be a reference such as registry.example.com/team/app:1.0, not a URL")
    named, at, digest = reference.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(
            f"has the digest {digest[:80]!r}: it must be sha256: and 64 hexadecimal digits, or longer kinds of SHA"
        )
    # A colon before the last slash is that of a port.
    colon = named.find(":", named.rfind("/") + 1)
    repository, tag = (named, None) if colon < 0 else (named[:colon], named[colon + 1 :])
    if _IMAGE_ID.fullmatch(repository) or _IMAGE_ID.fullmatch(named):
        raise ValueError("must be a name, not the id of an image")
    if tag is not None and not _TAG.fullmatch(tag):
        raise ValueError(
            f"has the tag {tag!r}: it must be 1 to 128 letters, digits, '_', '.', '-', not '.' or '-' first"
        )
    registry, path = _registry_and_path(repository)
    return Reference(registry, path, "" if digest else tag or "latest", digest)


def _registry_and_path(repository: str) -> tuple[str, str]:
    if len(repository) > MAX_REPOSITORY_LENGTH:
        raise ValueError(f"has a name of {len(repository)} characters: at most {MAX_REPOSITORY_LENGTH} are allowed")
    registry, slash, path = repository.partition("/")
    # Docker's own rule: anything else before the first slash is a namespace of Docker Hub.
    is_registry = "." in registry or ":" in registry or registry == "localhost" or registry != registry.lower()
    if slash and is_registry:
        _check_registry(registry)
    else:
        registry, path = DOCKER_HUB, repository
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise ValueError(_wrong_component(component))
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    return registry, f"library/{path}" if registry == DOCKER_HUB and "/" not in path else path


def _check_registry(registry: str) -> None:
    host, colon, port = registry, "", ""
    if not registry.endswith("]"):
        host, colon, port = registry.rpartition(":") if ":" in registry else (registry, "", "")
    if not (_HOST.fullmatch(host) or _IPV6_HOST.fullmatch(host)):
        raise ValueError(f"has the registry {registry!r}, which is no host name")
    if colon and not (_PORT.fullmatch(port) and 0 < int(port) <= 65535):
        raise ValueError(f"has the registry {registry!r}: its port must be a number from 1 to 65535")


def _wrong_component(component: str) -> str:
    if not component:
        return "has an empty part in its name: there is a '/' too many, or the name is missing"
    if _COMPONENT.fullmatch(component.lower()):
        return f"has {component!r} in its name: it must be lower case"
    return (
        f"has {component!r} in its name: each part must be lower-case letters and digits, with '.', '_' or '-' between"
    )
