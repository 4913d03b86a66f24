"""Space and state of the filesystems, as ``df`` shows them; in a container of those mounted in the container."""

import errno
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.worker.collectors import COLLECTOR_DECIDES, MAX_ITEMS, PROC, NamePatterns, left_out
from fleetpulse.worker.collectors.mounts import (
    MAX_FILESYSTEMS,
    Mount,
    MountedFilesystem,
    choose_filesystems,
    parse_mountinfo,
    read_disk_types,
    read_fstab,
    read_mounts,
)

PATIENCE_SECONDS = 0.15
"""What a filesystem may take before the others go on without it."""

ROUND_SECONDS = 0.6
"""What all of them may take, together with those that do not answer."""

HUNG_SECONDS = 5.0
"""A filesystem that was silent for less keeps its last reading; then it is in error."""

MAX_HUNG = 8
"""Most threads that wait for filesystems that do not answer. With more, network filesystems are not read."""

HUNG = "it does not answer"
_TOO_MANY_HUNG = "not read, because too many other filesystems do not answer"

_ROOT_ALONE = Mount(0, 0, "", "/", "", "")


class Space(NamedTuple):
    """Of a filesystem. ``used_bytes`` leaves out the blocks reserved for root, ``available_bytes`` has none of them."""

    size_bytes: int
    used_bytes: int
    available_bytes: int
    inodes: int = 0
    inodes_free: int = 0
    """Both 0 where the filesystem has no fixed number of inodes."""


Reading = Sequence[tuple[Mount, Space]] | OSError | None
"""Of one filesystem: the places that could be read, or why none could; ``None`` when it is not there any more."""


def read_space(mountpoint: str, device_number: str | None) -> Space | None:
    """Raises ``OSError``. May hang for as long as the filesystem does.

    ``None`` when nothing is there, or a file, which container tools mount, or another filesystem than the one with this
    number (``major:minor``).
    """
    try:
        folder = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if device_number:
            seen = os.fstat(folder).st_dev
            if f"{os.major(seen)}:{os.minor(seen)}" != device_number:
                return None
        now = os.fstatvfs(folder)
    finally:
        os.close(folder)
    block = now.f_frsize
    return Space(
        size_bytes=now.f_blocks * block,
        used_bytes=max(0, now.f_blocks - now.f_bfree) * block,
        available_bytes=now.f_bavail * block,
        inodes=now.f_files,
        inodes_free=now.f_ffree if now.f_files else 0,
    )


ReadSpace = Callable[[str, str | None], Space | None]


class _Round(threading.Thread):
    """Reads filesystems one after another and ends. Its progress may be looked at from outside."""

    def __init__(self, filesystems: Sequence[MountedFilesystem], read_space: ReadSpace) -> None:
        super().__init__(name="filesystem-reader", daemon=True)
        self._filesystems, self._read_space = filesystems, read_space
        self.readings: list[Reading] = []
        """So far; what is read now is the next one."""

        self.moved_on = threading.Event()
        """Set at the end."""

        self.is_abandoned = False

    def run(self) -> None:
        for filesystem in self._filesystems:
            self.readings.append(read_filesystem(filesystem, self._read_space))
            if self.is_abandoned:
                break
        self.moved_on.set()


def read_filesystem(filesystem: MountedFilesystem, read_space: ReadSpace) -> Reading:
    """The first of its places that can be read, and of a ZFS pool all of them."""
    places: list[tuple[Mount, Space]] = []
    error: OSError | None = None
    for mount in filesystem.mounts:
        try:
            space = read_space(mount.mountpoint, mount.stat_device_number)
        except OSError as exc:
            error = error or exc
            continue
        if space is not None:
            places.append((mount, space))
            if mount.fstype != "zfs":
                break
    return places or error


class PatientReader:
    """Reads filesystems, and goes on without one that does not answer. Used by one thread.

    That one keeps its thread, at most ``MAX_HUNG`` have one, and is read again once the thread is free. Times are in
    seconds; ``clock`` is monotonic.
    """

    def __init__(
        self, read_space: ReadSpace, clock: Callable[[], float], patience_seconds: float, round_seconds: float
    ) -> None:
        self._read_space, self._clock = read_space, clock
        self._patience_seconds, self._round_seconds = patience_seconds, round_seconds
        self._hung: dict[Hashable, tuple[_Round, float]] = {}
        self._behind: set[Hashable] = set()
        """Not reached in the last round, so they come first in the next."""

    def read(self, filesystems: Sequence[MountedFilesystem]) -> dict[Hashable, Reading]:
        """By the key of the filesystem; those that are not read in time are missing."""
        self._hung = {key: hung for key, hung in self._hung.items() if hung[0].is_alive()}
        waiting = [each for each in filesystems if each.key not in self._hung]
        waiting.sort(key=lambda each: each.key not in self._behind)
        give_up_at = self._clock() + self._round_seconds
        readings: dict[Hashable, Reading] = {}
        while (waiting := [each for each in waiting if self._may_read(each)]) and self._clock() < give_up_at:
            done = self._read_some(waiting, give_up_at)
            readings.update(zip([each.key for each in waiting], done, strict=False))
            # The one that the thread has come to does not answer.
            waiting = waiting[len(done) + 1 :]
        self._behind = {each.key for each in waiting}
        return readings

    def silent_seconds(self, key: Hashable) -> float:
        """For how long the filesystem has not answered."""
        return self._clock() - self._hung[key][1] if key in self._hung else 0.0

    def may_not_read(self, filesystem: MountedFilesystem) -> bool:
        """Whether it is left unread because of others."""
        return filesystem.key not in self._hung and not self._may_read(filesystem)

    def _may_read(self, filesystem: MountedFilesystem) -> bool:
        # The last thread is for disks: they answer nearly always.
        return len(self._hung) < MAX_HUNG or (not filesystem.is_network and len(self._hung) == MAX_HUNG)

    def _read_some(self, filesystems: Sequence[MountedFilesystem], give_up_at: float) -> list[Reading]:
        """All that a new thread reads before it comes to one that does not answer, which keeps the thread."""
        round_ = _Round(filesystems, self._read_space)
        round_.start()
        done = -1
        while not round_.moved_on.wait(self._patience_seconds):
            if len(round_.readings) == done or self._clock() >= give_up_at:
                break
            done = len(round_.readings)
        round_.is_abandoned = True
        readings = list(round_.readings)
        if len(readings) < len(filesystems):
            self._hung[filesystems[len(readings)].key] = (round_, self._clock())
        return readings


class FilesystemCollector:
    """``filesystems``, sorted by mountpoint. One that cannot be read is there with its error.

    A network filesystem belongs to another machine, and all that mount it would report the same space: only its state
    is reported, unless an operator's pattern names it. ``fstab`` says what should be writable.
    """

    name = "filesystem"

    def __init__(
        self,
        proc: Path = PROC,
        patterns: NamePatterns = COLLECTOR_DECIDES,
        read_space: ReadSpace = read_space,
        fstab: Path = Path("/etc/fstab"),
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        """Patterns are for mount points. ``clock`` runs in seconds."""
        self._proc, self._patterns, self._fstab = proc, patterns, fstab
        self._reader = PatientReader(read_space, clock, patience_seconds, round_seconds)
        self._table: str | None = None
        self._chosen: list[MountedFilesystem] = []
        self._last: dict[Hashable, pb.Filesystem] = {}
        self._writable: set[Hashable] = set()
        """Seen writable while they were mounted."""

    def collect(self) -> pb.Heartbeat:
        """Never raises for a filesystem, and without a mount table reports the root alone."""
        self._choose()
        unread = self._chosen[MAX_FILESYSTEMS:]
        chosen = self._chosen[:MAX_FILESYSTEMS]
        readings = self._reader.read(chosen)
        found = [(each, message) for each in chosen if (message := self._message(each, readings)) is not None]
        # What is in error is as large as can be: nobody knows.
        found.sort(key=lambda item: (item[0].importance, item[1].state == "ok", -item[1].size_bytes))
        kept = [message for _, message in found[:MAX_ITEMS]]
        return pb.Heartbeat(
            filesystems=sorted(kept, key=lambda message: message.mountpoint),
            left_out=left_out(self.name, len(found) - len(kept) + len(unread)),
        )

    def _choose(self) -> None:
        """Anew when the mount table has changed."""
        try:
            table = read_mounts(self._proc)
        except OSError:
            table = ""
        if table == self._table:
            return
        self._table = table
        mounts = parse_mountinfo(table) or [_ROOT_ALONE]
        self._chosen = choose_filesystems(mounts, read_disk_types(self._proc), self._patterns)
        keys = {each.key for each in self._chosen}
        self._writable &= keys
        self._writable |= {each.key for each in self._chosen if not each.mounts[0].is_read_only}
        self._last = {key: message for key, message in self._last.items() if key in keys}

    def _message(self, filesystem: MountedFilesystem, readings: Mapping[Hashable, Reading]) -> pb.Filesystem | None:
        """``None`` for one that is not there or has no blocks, as a pseudo filesystem, or is not known yet."""
        key = filesystem.key
        if key not in readings:
            if self._reader.may_not_read(filesystem):
                return _in_error(filesystem, _TOO_MANY_HUNG)
            if self._reader.silent_seconds(key) >= HUNG_SECONDS:
                return _in_error(filesystem, HUNG)
            return self._last.get(key)
        reading = readings[key]
        if isinstance(reading, OSError):
            message: pb.Filesystem | None = _in_error(filesystem, error_text(reading))
        else:
            message = self._with_space(filesystem, reading) if reading else None
        if message is None:
            self._last.pop(key, None)
        else:
            self._last[key] = message
        return message

    def _with_space(self, filesystem: MountedFilesystem, places: Sequence[tuple[Mount, Space]]) -> pb.Filesystem | None:
        (first, space), others = places[0], places[1:]
        available = max([each.available_bytes for _, each in places])
        used = sum(each.used_bytes for _, each in places)
        size = used + available if others else space.size_bytes
        if size <= 0:
            return None
        fields: dict[str, int] = {}
        if not filesystem.is_network or filesystem.is_asked_for:
            fields = {"used_bytes": used, "available_bytes": available, "size_bytes": size}
            if space.inodes:
                fields |= {"inodes": space.inodes, "inodes_free": space.inodes_free}
        broken = self._is_broken(filesystem, first)
        return make(
            pb.Filesystem,
            mountpoint=first.mountpoint,
            device=first.source,
            fstype=first.fstype,
            state="read_only" if broken else "ok",
            state_reason=broken,
            is_read_only=first.is_read_only,
            **fields,
        )

    def _is_broken(self, filesystem: MountedFilesystem, mount: Mount) -> str:
        """Why a read-only filesystem should be writable; empty when it should not, or is."""
        if not mount.is_read_only:
            return ""
        wanted = read_fstab(self._fstab).get(mount.mountpoint)
        if wanted is not None and "ro" in wanted:
            return ""
        if mount.is_broken:
            return "the kernel stopped writing because of an error"
        if filesystem.key in self._writable:
            return "it was writable before"
        return "" if wanted is None else "it is to be mounted writable at boot"


def error_text(error: OSError) -> str:
    """The kernel's words and its name for the error."""
    name = errno.errorcode.get(error.errno or 0, "")
    return f"{error.strerror or error} ({name})" if name else str(error)


def _in_error(filesystem: MountedFilesystem, reason: str) -> pb.Filesystem:
    mount = filesystem.mounts[0]
    return make(
        pb.Filesystem,
        mountpoint=mount.mountpoint,
        device=mount.source,
        fstype=mount.fstype,
        state="error",
        state_reason=reason,
    )
