"""The locks, the distribution and the helper scripts. `make lint` checks layers and generated code."""

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.tools import find_tool, without_tool

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PACKAGES = ("master", "worker", "proto")


def run(command: Sequence[str | Path], folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. ``env`` extends the environment of the tests."""
    return subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)


def executable(path: Path, *lines: str) -> Path:
    """Writes a shell script that stands in for a program."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# Locks


def requirements(name: str) -> set[str]:
    """The normalised distribution names in requirements/NAME.in and the files that it includes."""
    names: set[str] = set()
    for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            names |= requirements(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            names.add(normalised(re.split(r"[\[<>=!~; ]", line)[0]))
    return names


def pins(name: str) -> dict[str, tuple[str, int]]:
    """The version and the number of hashes of each distribution in requirements/NAME.txt."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    found: dict[str, tuple[str, int]] = {}
    for block in blocks:
        head = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", block)
        assert head is not None, f"not a pin: {block.splitlines()[0]}"
        found[normalised(head[1])] = (head[2], block.count("--hash=sha256:"))
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


LOCKS = ["build", "runtime", "dev"]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_requirement(name: str) -> None:
    assert requirements(name) <= pins(name).keys()


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes(name: str) -> None:
    locked = pins(name)
    assert locked
    assert [pin for pin, (_, hashes) in locked.items() if hashes == 0] == []


@pytest.mark.parametrize("name", ["build", "runtime"])
def test_test_lock_has_the_versions_of_the_runtime_lock(name: str) -> None:
    tested = pins("dev")
    assert {pin: tested[pin] for pin in pins(name)} == pins(name)


def test_locks_name_no_package_index() -> None:
    assert [path.name for path in REQUIREMENTS.iterdir() if "://" in path.read_text()] == []


# The distribution


def test_changelog_ends_at_the_version_of_the_distribution() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("needs CHANGELOG.md")
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog.read_text(), flags=re.MULTILINE)
    assert released[:1] == [version("fleetpulse")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a source distribution, which must be complete too."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    shutil.copytree(ROOT / "src", source / "src", symlinks=True)
    shutil.copytree(REQUIREMENTS, source / "requirements")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)

    result = run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)], source)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_contains_only_the_packages_and_their_type_markers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    files = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    assert packed == {f"fleetpulse/{path.as_posix()}" for path in files if "__pycache__" not in path.parts}


@pytest.mark.timeout(300)
def test_wheel_works_in_a_clean_environment_beside_proto_plus(wheel: Path, tmp_path: Path) -> None:
    """proto-plus, a dependency of all Google Cloud libraries, owns the top-level name `proto`."""
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    versions = tmp_path / "versions.txt"
    versions.write_text("".join(f"{name}=={pin}\n" for name, (pin, _) in pins("runtime").items()))
    assert run([uv, "venv", "--python", sys.executable, tmp_path / "venv"]).returncode == 0
    installed = run([uv, "pip", "install", "--python", python, "--constraint", versions, wheel, "proto-plus"])
    if installed.returncode:
        without_tool("proto-plus from a package index", in_ci=bool(os.environ.get("CI")))
    script = (
        "import proto, fleetpulse.master.app, fleetpulse.worker.app, fleetpulse.proto.fleetpulse_pb2;"
        "proto.Message; print(fleetpulse.master.app.__file__)"
    )
    result = run([python, "-P", "-c", script], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(str(tmp_path))
    top = {entry.name for entry in (tmp_path / "venv").glob("lib/python3*/site-packages/*")}
    assert not top & {"master", "worker"}
    assert run([python.with_name("fleetpulse"), "master", "--help"], tmp_path).returncode == 0


@pytest.mark.parametrize("command", ["master", "simulate", "up", "worker"])
def test_distribution_installs_the_command(command: str) -> None:
    result = run([Path(sys.executable).with_name("fleetpulse"), command, "--help"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: fleetpulse {command}")


# Helper scripts


def make_venv(python: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(["sh", "tools/make_venv.sh", python, folder])


def test_too_old_python_is_reported_in_one_line(tmp_path: Path) -> None:
    old = executable(tmp_path / "python3.9", 'case "$2" in *exit*) exit 1;; *) echo 3.9;; esac')
    result = make_venv(old, tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr.startswith(f"FleetPulse: Python 3.11 or newer is needed and '{old}' is 3.9.")
    assert result.stderr.count("\n") == 1


def test_missing_python_is_reported_in_one_line(tmp_path: Path) -> None:
    result = make_venv(tmp_path / "python3", tmp_path / "venv")
    assert result.returncode == 1
    assert "is missing" in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_ensurepip_names_the_package_and_leaves_no_files(tmp_path: Path) -> None:
    split = executable(
        tmp_path / "python3", 'case "$2" in *ensurepip*) exit 1;; *print*) echo python3.11-venv;; *) exit 0;; esac'
    )
    result = make_venv(split, tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr.endswith("apt-get install python3.11-venv\n")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


@pytest.fixture
def bare_path(tmp_path: Path) -> Callable[..., str]:
    """Makes a PATH with only the named programs."""

    def make(*names: str) -> str:
        folder = tmp_path / "path"
        folder.mkdir()
        for name in names:
            real = shutil.which(name)
            assert real is not None
            (folder / name).symlink_to(real)
        return str(folder)

    return make


SHELL_PROGRAMS = ("bash", "cat", "chmod", "cp", "dirname", "mkdir", "rm", "sed", "sort")


def test_fetch_tools_without_apt_names_the_missing_programs(tmp_path: Path, bare_path: Callable[..., str]) -> None:
    result = run(["bash", "tools/fetch_tools.sh", tmp_path / "tools"], PATH=bare_path(*SHELL_PROGRAMS))
    assert result.returncode == 0
    assert "install these yourself" in result.stdout
    assert "promtool" in result.stdout


def test_failed_fetch_is_reported_with_the_apt_message(tmp_path: Path, bare_path: Callable[..., str]) -> None:
    path = bare_path(*SHELL_PROGRAMS)
    executable(Path(path) / "apt-get", "echo 'E: no way to the mirror' >&2", "exit 100")
    result = run(["bash", "tools/fetch_tools.sh", tmp_path / "tools"], PATH=path)
    assert result.returncode == 0
    assert re.search(r"could not get .*promtool", result.stdout)
    assert result.stdout.count("no way to the mirror") == 1
    assert list((tmp_path / "tools" / "bin").iterdir()) == []


def test_program_on_the_path_is_not_fetched(tmp_path: Path, bare_path: Callable[..., str]) -> None:
    path = bare_path(*SHELL_PROGRAMS)
    promtool = executable(Path(path) / "promtool")
    executable(Path(path) / "apt-get", "exit 100")
    result = run(["bash", "tools/fetch_tools.sh", tmp_path / "tools"], PATH=path)
    assert f"tools: promtool is {promtool}" in result.stdout


@pytest.mark.parametrize(("test_exit", "lint_exit", "expected"), [(0, 0, 0), (2, 0, 1), (0, 2, 1), (2, 2, 1)])
def test_ci_runs_both_halves_and_ends_with_the_pytest_summary(
    tmp_path: Path, test_exit: int, lint_exit: int, expected: int
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    summary = "========= 3 passed, 1 skipped in 61.10s (0:01:01) ========="
    executable(
        tmp_path / "make",
        f"if [ $1 = test ]; then echo '{summary}'; exit {test_exit}; fi",
        f"echo linted; exit {lint_exit}",
    )
    result = run(["bash", tmp_path / ".ci" / "run"], PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert result.returncode == expected
    assert "linted" in result.stdout
    assert result.stdout.splitlines()[-1] == summary


# Finding programs in tests


def test_fetched_program_takes_precedence_over_the_path(tmp_path: Path) -> None:
    fetched, system = tmp_path / "fetched", tmp_path / "system"
    for folder in (fetched, system):
        folder.mkdir()
        executable(folder / "promtool")
    assert find_tool("promtool", fetched, str(system)) == fetched / "promtool"
    assert find_tool("promtool", tmp_path / "none", str(system)) == system / "promtool"
    assert find_tool("promtool", tmp_path / "none", str(tmp_path)) is None


def test_missing_program_skips_a_test_but_fails_it_in_ci() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs promtool: `make tools`"):
        without_tool("promtool", in_ci=False)
    with pytest.raises(pytest.fail.Exception, match="needs promtool: `make tools`"):
        without_tool("promtool", in_ci=True)
