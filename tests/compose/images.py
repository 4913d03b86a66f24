"""Images for a machine without an image registry: a Debian with Python, and Prometheus and Alertmanager on top.

The first takes minutes, so its files are kept in ``.tools/images`` for the next run. The engine of the tests cannot
reach a package index either, so the Python image has the wheels for FleetPulse's image.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import docker
import pytest

from tests.docker_engine import IMAGE, Engine
from tests.tools import ROOT, find_tool, require_tool, without_tool

PYTHON_IMAGE = "fleetpulse-python:test"
PROMETHEUS_IMAGE = "fleetpulse-prometheus:test"
ALERTMANAGER_IMAGE = "fleetpulse-alertmanager:test"

_KEPT = ROOT / ".tools" / "images"
_WHEELS = _KEPT / "wheels"
_UNPACKED = ROOT / ".tools" / "root"

_PYTHON_DOCKERFILE = """
FROM {base}
COPY wheels /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1
"""
_LOCKS = ("build.txt", "runtime.txt")
_DOCKERFILE = """
FROM {base}
# For the health checks: the official images are based on busybox and have it.
COPY --from={busybox} /bin/busybox /bin/wget
RUN install --directory --owner nobody --group nogroup {data}
COPY {program} /bin/
COPY share /usr/share/prometheus
USER nobody
# An unpacked Alertmanager reads its templates from file descriptor 9 (tools/fetch_tools.sh); others ignore it.
ENTRYPOINT ["/bin/sh", "-c", "exec 9</usr/share/prometheus/alertmanager; exec {program} \\"$@\\"", "{program}"]
"""


def load_images(engine: Engine) -> None:
    """Builds the three images on the engine, which has the busybox image already."""
    with contextlib.closing(docker.DockerClient(engine.host, timeout=300)) as client:
        try:
            client.images.get(PYTHON_IMAGE)
        except docker.errors.ImageNotFound:
            _build_python(client)
        _build(client, PROMETHEUS_IMAGE, "prometheus", data="/prometheus")
        _build(client, ALERTMANAGER_IMAGE, "prometheus-alertmanager", data="/alertmanager")


def _build_python(client: docker.DockerClient) -> None:
    base = f"{PYTHON_IMAGE}-base"
    repository, tag = base.split(":")
    client.api.import_image_from_file(str(_base_archive()), repository, tag)
    say_version = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = client.containers.run(base, ["python3", "-c", say_version], network_mode="none", remove=True)
    _download_wheels(version.decode().strip())
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(_WHEELS, Path(context) / "wheels")
        (Path(context) / "Dockerfile").write_text(_PYTHON_DOCKERFILE.format(base=base))
        client.images.build(path=context, tag=PYTHON_IMAGE, rm=True)


def _download_wheels(python_version: str) -> None:
    """Downloads the packages that Dockerfile installs, for the Python of the image."""
    files = [word for name in _LOCKS for word in ("-r", str(ROOT / "requirements" / name))]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--python-version", python_version),
        *("--dest", str(_WHEELS), "--find-links", str(_WHEELS), *files),
    ]
    _WHEELS.mkdir(parents=True, exist_ok=True)
    if subprocess.run([*command, "--no-index"], capture_output=True, check=False).returncode == 0:
        return  # an earlier run downloaded them
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.fail(f"no wheels for the image: {made.stderr[-1000:]}", pytrace=False)


def _build(client: docker.DockerClient, image: str, program: str, data: str) -> None:
    """Builds an image of one program, with a data folder at the place of the official image."""
    found = find_tool(program, _UNPACKED / "usr/bin", os.environ.get("PATH", os.defpath))
    if found is None:
        without_tool(program, in_ci=bool(os.environ.get("CI")))
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(found, Path(context) / program)
        # Debian's Alertmanager reads its templates from this folder; others contain them.
        templates = found.parent.parent / "share" / "prometheus" / "alertmanager"
        copied = Path(context) / "share" / "alertmanager"
        copied.mkdir(parents=True)
        if templates.is_dir():
            shutil.copytree(templates, copied, dirs_exist_ok=True)
        dockerfile = _DOCKERFILE.format(base=PYTHON_IMAGE, busybox=IMAGE, program=program, data=data)
        (Path(context) / "Dockerfile").write_text(dockerfile)
        client.images.build(path=context, tag=image, rm=True)


def _base_archive() -> Path:
    """Returns a tar with a Debian of this machine's release and Python, and makes it if it is missing."""
    require_tool("debootstrap")
    _KEPT.mkdir(parents=True, exist_ok=True)
    archive = _KEPT / "python.tar"
    with (_KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs need only one
        if not archive.exists():
            command = [ROOT / "tools" / "make_base_image.sh", archive]
            made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.fail(f"no base image: {made.stdout[-1000:]}\n{made.stderr[-1000:]}", pytrace=False)
    return archive
