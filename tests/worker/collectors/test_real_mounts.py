"""worker.collectors.filesystem on real mounts, in a mount namespace that ends with its process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tools import ROOT

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("mkfs.ext4"), reason="needs unshare, mkfs.ext4"),
]

PRELUDE = """
import json, os, subprocess, sys, time
from pathlib import Path
from fleetpulse.worker.collectors import NamePatterns
from fleetpulse.worker.collectors.filesystem import FilesystemCollector

def run(*words):
    subprocess.run([os.fsencode(word) for word in words], check=True, capture_output=True)

def disk(name, megabytes=32):
    # An image with ext4 behind a loop device, which the kernel frees with the last mount of it.
    image, place = folder / (name + ".img"), folder / name
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    run("mkfs.ext4", "-q", "-F", str(image))
    place.mkdir()
    run("mount", "-o", "loop", str(image), str(place))
    return place

def collector(**options):
    return FilesystemCollector(patterns=NamePatterns([f"{folder}*"]), **options)

def filesystems(of):
    keys = ("mountpoint", "state", "state_reason", "used_bytes", "available_bytes", "size_bytes", "is_read_only")
    return [{key: getattr(item, key) for key in keys} for item in of.collect().filesystems]

folder = Path(sys.argv[1])
"""

Namespace = Callable[[str], Any]


@pytest.fixture
def namespace(tmp_path: Path) -> Namespace:
    """Runs a script in a namespace of its own, with ``folder`` for its mounts; returns what it prints as JSON."""
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine allows no mount namespace")

    def run(script: str) -> Any:
        command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", PRELUDE + script, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
        if "failed to setup loop device" in done.stderr:
            pytest.skip("no loop device is free")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_disk_that_is_full_for_its_users_reads_as_full(namespace: Namespace) -> None:
    (full,) = namespace(
        """
place = disk("full")
os.chmod(place, 0o777)
pid = os.fork()
if pid == 0:
    os.chdir(place)
    os.setuid(65534)
    try:
        with open("x", "wb") as file:
            while file.write(b"x" * 65536):
                file.flush()
    except OSError:
        os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(filesystems(collector())))
"""
    )
    used = full["used_bytes"]
    assert used / (used + full["available_bytes"]) > 0.99
    assert used / full["size_bytes"] < 0.96  # the rest is root's
    assert full["state"] == "ok"


def test_over_mounted_and_bind_mounted_filesystems(namespace: Namespace, tmp_path: Path) -> None:
    names = namespace(
        """
hidden, seen = disk("hidden"), disk("seen")
(seen / "sub").mkdir()
(folder / "bind").mkdir()
run("mount", "--bind", str(seen / "sub"), str(folder / "bind"))
(folder / "file").touch()
(seen / "f").touch()
run("mount", "--bind", str(seen / "f"), str(folder / "file"))
run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(hidden))
print(json.dumps([[item["mountpoint"], item["size_bytes"]] for item in filesystems(collector())]))
"""
    )
    sizes = {Path(name).name: size for name, size in names}
    # The disk that the tmpfs covers is not there; the other one counts once, at the shortest folder.
    assert sizes.keys() == {"hidden", "bind"}
    assert sizes["hidden"] == 64 * 1024


@pytest.mark.parametrize("name", ["a\u00a0b", "a\nb", "a b\\040", "cass\udce9", "x" * 250])
def test_odd_names(namespace: Namespace, name: str) -> None:
    found = namespace(
        f"""
place = folder / {name!r}
place.mkdir()
run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place))
print(json.dumps([[item["size_bytes"], item["state"]] for item in filesystems(collector())]))
"""
    )
    assert found == [[64 * 1024, "ok"]]


def test_filesystem_that_turns_read_only(namespace: Namespace) -> None:
    before, bind, after = namespace(
        """
place = disk("data")
of = collector(fstab=folder / "none")
states = [filesystems(of)]
(folder / "view").mkdir()
run("mount", "--bind", str(place), str(folder / "view"))
run("mount", "-o", "remount,bind,ro", str(folder / "view"))
states.append(filesystems(of))
run("mount", "-o", "remount,ro", str(place))
states.append(filesystems(of))
print(json.dumps(states))
"""
    )
    assert [(item["state"], item["is_read_only"]) for item in (*before, *bind, *after)] == [
        ("ok", False), ("ok", False), ("read_only", True),
    ]  # fmt: skip


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_fuse_filesystem_that_does_not_answer(namespace: Namespace) -> None:
    """Nobody answers the first request, so everything else waits. Closing the device ends it with ENOTCONN."""
    result = namespace(
        """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
run("mount", "-t", "tmpfs", "none", str(folder))
good, hung = folder / "good", folder / "hung"
good.mkdir(), hung.mkdir()
run("mount", "-t", "tmpfs", "none", str(good))
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"hung", os.fsencode(hung), b"fuse", 0, options):
    raise OSError(ctypes.get_errno(), "mount")
now = [1000.0]
of = collector(clock=lambda: now[0], patience_seconds=0.2, round_seconds=30.0)
first = filesystems(of)
now[0] += 5.0
rounds = [filesystems(of) for _ in range(5)]
threads = sum(thread.name == "filesystem-reader" for thread in threading.enumerate())
os.close(fuse)
while any(thread.name == "filesystem-reader" for thread in threading.enumerate()):
    time.sleep(0.01)
gone = filesystems(of)
print(json.dumps([first, rounds, threads, gone]))
"""
    )
    first, rounds, threads, gone = result

    def states(items: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
        return {Path(item["mountpoint"]).name: (item["state"], item["state_reason"]) for item in items}

    assert states(first)["good"] == ("ok", "")
    for items in rounds:
        assert states(items)["good"] == ("ok", "")
        assert states(items)["hung"] == ("error", "it does not answer")
    assert threads == 1
    assert states(gone)["hung"][0] == "error"
    assert "ENOTCONN" in states(gone)["hung"][1] or "ECONNABORTED" in states(gone)["hung"][1]


def test_unmounted_filesystem_is_gone(namespace: Namespace) -> None:
    before, after = namespace(
        """
place = disk("data")
of = collector()
states = [filesystems(of)]
run("umount", str(place))
states.append(filesystems(of))
print(json.dumps(states))
"""
    )
    assert len(before) == 1
    assert after == []
