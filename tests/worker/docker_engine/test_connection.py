"""worker.docker_engine.connection: errors, word for word as engines of versions 20 to 28 give them."""

import pytest
import requests

from fleetpulse.proto.rules import ATTEMPT_REASONS
from fleetpulse.worker.docker_engine.connection import map_errors, refusal
from fleetpulse.worker.tasks.engine import EngineUnavailable

PULLING = [
    (
        'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
        "image_pull_failed",
    ),
    ('Get "https://10.0.0.1:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused', "image_pull_failed"),
    ("net/http: TLS handshake timeout", "image_pull_failed"),
    ("toomanyrequests: You have reached your pull rate limit.", "image_pull_failed"),
    ("pull access denied for nosuch, repository does not exist or may require 'docker login'", "image_not_found"),
    ("manifest for busybox:nosuch not found: manifest unknown: manifest unknown", "image_not_found"),
    ("unauthorized: authentication required", "image_not_found"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", "image_invalid"),
    ("failed to register layer: write /usr/lib/x: no space left on device", "disk_full"),
    ("invalid reference format: repository name must be lowercase", "image_invalid"),
]

RUNNING = [
    ('OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown', "command_not_found"),
    ('unable to start container process: exec: "/x": stat /x: no such file or directory', "command_not_found"),
    ('unable to start container process: exec: "/etc": permission denied', "command_not_found"),
    ("exec /program: exec format error", "image_invalid"),
    ("No command specified", "command_not_found"),
    ('could not select device driver "" with capabilities: [[gpu]]', "container_failed"),
    ("mkdir /var/lib/docker/overlay2/x: no space left on device", "disk_full"),
    ("Minimum memory limit allowed is 6MB", "container_failed"),
    ("network bridge not found", "container_failed"),
]


@pytest.mark.parametrize(("answer", "reason"), PULLING)
def test_reason_of_a_pull_error(answer: str, reason: str) -> None:
    assert refusal(answer, pulling=True).reason == reason


@pytest.mark.parametrize(("answer", "reason"), RUNNING)
def test_reason_of_a_container_error(answer: str, reason: str) -> None:
    assert refusal(answer).reason == reason


@pytest.mark.parametrize(("answer", "reason"), PULLING + RUNNING)
def test_message_quotes_docker_and_reason_is_known(answer: str, reason: str) -> None:
    assert answer in str(refusal(answer, pulling=True))
    assert reason in ATTEMPT_REASONS


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("Connection aborted."),
        requests.ReadTimeout("Read timed out. (read timeout=30)"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_missing_answer_is_engine_unavailable(error: Exception) -> None:
    def fail() -> None:
        with map_errors("unix:///run/docker.sock", "c0ffee"):
            raise error

    with pytest.raises(EngineUnavailable, match=r"no Docker Engine answers at unix:///run/docker\.sock: "):
        fail()


def test_long_answer_is_truncated() -> None:
    assert len(str(refusal("x" * 10_000))) < 700
