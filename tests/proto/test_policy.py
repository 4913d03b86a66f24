"""proto.policy"""

import math
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.proto.image import parse_image
from fleetpulse.proto.policy import (
    PolicyError,
    PolicyInput,
    SecurityContext,
    TaskPolicy,
    apply_defaults,
    check_policy,
    matches,
    parse_policy,
    read_policy,
)

SHA = "sha256:" + "0123456789abcdef" * 4
OTHER_SHA = "sha256:" + "f" * 64
SECRET = "hunter2-never-shown"

WISH = PolicyInput("busybox", ("true",), {}, 1.0, 512 * 2**20, None, None, None)


def rules_broken(policy: TaskPolicy, **changes: Any) -> list[str]:
    return [refusal.rule for refusal in check_policy(policy, WISH._replace(**changes))]


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/team/app", "docker.io/team/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b:latest"),
        (f"busybox:1@{SHA}", f"docker.io/library/busybox@{SHA}"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
    ],
)
def test_short_references_are_completed(reference: str, full: str) -> None:
    assert str(parse_image(reference)) == full


@pytest.mark.parametrize(
    ("pattern", "reference", "does"),
    [
        ("docker.io/library/*", "busybox", True),
        ("docker.io/library/*", "busybox:1.37", True),
        ("docker.io/library/*", f"busybox@{SHA}", True),
        ("docker.io/library/*", "evil/busybox", False),
        ("docker.io/library/*", "registry.example/docker.io/library/busybox", False),
        ("docker.io/library/python:3.*", "python:3.11", True),
        ("docker.io/library/python:3.*", "python:2.7", False),
        # Docker takes the digest and does not look at the tag.
        ("docker.io/library/python:3.*", f"python:3.11@{SHA}", False),
        ("ghcr.io/team/*", "ghcr.io/team/app", True),
        ("ghcr.io/team/*", "ghcr.io/team/sub/app", False),
        ("ghcr.io/team/**", "ghcr.io/team/sub/app:1", True),
        ("ghcr.io/team*/app", "ghcr.io/team-evil/app", True),
        ("ghcr.io/team/app", "ghcrxio/team/app", False),
        ("registry.example:5000/app", "registry.example:5000/app:2", True),
        ("registry.example:5000/app:1", "registry.example:5000/app:2", False),
    ],
)
def test_patterns_of_images(pattern: str, reference: str, does: bool) -> None:
    assert matches(pattern, parse_image(reference)) is does


@pytest.mark.parametrize(
    ("policy", "changes", "broken"),
    [
        ({}, {}, []),
        ({"images": ("docker.io/library/*",)}, {}, []),
        ({"images": ("ghcr.io/**",)}, {}, ["images"]),
        ({"images": ("ghcr.io/**",), "digests": (SHA,)}, {"image": f"evil/app@{SHA}"}, []),
        ({"digests": (SHA,)}, {"image": f"busybox@{OTHER_SHA}"}, ["digests"]),
        ({"require_digest": True}, {}, ["require_digest"]),
        ({"require_digest": True}, {"image": f"busybox@{SHA}"}, []),
        ({"networks": ("none",)}, {"network": "bridge"}, ["networks"]),
        ({"networks": ("none",)}, {}, []),
        ({}, {"network": "host"}, ["networks"]),
        ({}, {"network": "container:abc"}, ["networks"]),
        ({"read_only_root": "forced"}, {"read_only": False}, ["read_only_root"]),
        ({"read_only_root": "default"}, {"read_only": False}, []),
        ({"user": "1000"}, {"user": "0"}, ["user"]),
        ({"user": "1000"}, {"user": "1000"}, []),
        ({"require_non_root": True}, {}, ["require_non_root"]),
        ({"require_non_root": True}, {"user": "root"}, ["require_non_root"]),
        ({"require_non_root": True}, {"user": "nobody"}, ["require_non_root"]),
        ({"require_non_root": True}, {"user": "000:5"}, ["require_non_root"]),
        ({"require_non_root": True}, {"user": "1000:0"}, []),
        ({"require_non_root": True, "user": "1000"}, {}, []),
        ({"max_env_entries": 1}, {"env": {"A": "1", "B": "2"}}, ["max_env_entries"]),
        ({"max_env_bytes": 3}, {"env": {"A": "é1"}}, ["max_env_bytes"]),
        ({"max_env_bytes": 4}, {"env": {"A": "é1"}}, []),
        ({"max_command_bytes": 3}, {"command": ("true",)}, ["max_command_bytes"]),
        ({"max_cpu_cores": 0.5}, {}, ["max_cpu_cores"]),
        ({}, {"cpu_cores": math.nan}, ["max_cpu_cores"]),
        ({}, {"cpu_cores": math.inf}, ["max_cpu_cores"]),
        ({"max_memory_mib": 511}, {}, ["max_memory_mib"]),
        ({"max_memory_mib": 511}, {"memory_bytes": 511 * 2**20 + 1}, ["max_memory_mib"]),
        ({"max_cpu_cores": 0.5, "require_digest": True}, {}, ["require_digest", "max_cpu_cores"]),
    ],
)
def test_broken_rules_are_found(policy: dict[str, Any], changes: dict[str, Any], broken: list[str]) -> None:
    assert rules_broken(TaskPolicy(**policy), **changes) == broken


@pytest.mark.parametrize(
    ("policy", "changes", "settled"),
    [
        ({}, {}, (None, None, None)),
        ({}, {"read_only": False, "user": "1", "network": "none"}, (False, "1", "none")),
        ({"read_only_root": "default"}, {}, (True, None, None)),
        ({"read_only_root": "default"}, {"read_only": False}, (False, None, None)),
        ({"read_only_root": "forced"}, {}, (True, None, None)),
        ({"user": "1000:1000"}, {}, (None, "1000:1000", None)),
        ({"networks": ("none",)}, {}, (None, None, "none")),
        ({"default_network": "none"}, {}, (None, None, "none")),
        ({"default_network": "none"}, {"network": "bridge"}, (None, None, "bridge")),
    ],
)
def test_policy_fills_in_defaults(policy: dict[str, Any], changes: dict[str, Any], settled: SecurityContext) -> None:
    assert apply_defaults(TaskPolicy(**policy), WISH._replace(**changes)) == settled


def test_no_refusal_repeats_the_environment() -> None:
    told = check_policy(TaskPolicy(max_env_entries=0, max_env_bytes=0), WISH._replace(env={"TOKEN": SECRET}))
    assert len(told) == 2
    assert SECRET not in repr(told) + " ".join(map(str, told))


def test_the_example_of_the_documentation_is_a_policy_with_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    policy = parse_policy(example)
    said = {line.partition(" = ")[0] for line in example.splitlines() if " = " in line}
    assert said == set(TaskPolicy._fields)
    assert policy != TaskPolicy()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("images =", "is not TOML: .*line 1|is not TOML: .*end of document"),
        ("\nimages = [\n", "is not TOML: "),
        ("[image]\nallow = []", "line 1: 'image' is not known; known are allow_host, allow_master, .*images"),
        ("\n\nmax_pid = 5", "line 3: 'max_pid' is not known"),
        (
            'require_digest = true\nimages = ["busybox"]',
            "line 2: images: expected a list of patterns of full names",
        ),
        ("images = []", "line 1: images: expected a list"),
        ('images = "docker.io/library/*"', "line 1: images: expected a list"),
        ('images = ["docker.io/Library/*"]', "line 1: images: expected"),
        ('images = ["docker.io/library/a\\n"]', "line 1: images: expected"),
        ('digests = ["sha256:abc"]', "line 1: digests: expected"),
        (f'digests = ["{SHA}\\n"]', "line 1: digests: expected"),
        ('user = "9999999999"', "line 1: user: expected USER or USER:GROUP"),
        ("max_cpu_cores = true", "line 1: max_cpu_cores: expected a number above 0"),
        ("max_pids = 99999999999999999999", "line 1: max_pids: expected a whole number, 1 or more"),
        ("require_digest = 1", "line 1: require_digest: expected true or false"),
        ('networks = ["host"]', "line 1: networks: expected a list of: none, bridge"),
        ('networks = ["none"]\ndefault_network = "bridge"', "line 2: default_network: expected one of networks"),
        ('default_network = "host"', "line 1: default_network: expected one of: none, bridge"),
        ('read_only_root = "yes"', "line 1: read_only_root: expected one of: off, default, forced"),
        ('user = "Root"', "line 1: user: expected USER or USER:GROUP"),
        ("user = 1000", "line 1: user: expected USER or USER:GROUP"),
        ('user = "0"\nrequire_non_root = true', "line 1: user: expected a number other than 0"),
        ("max_env_entries = -1", "line 1: max_env_entries: expected a whole number"),
        ("max_env_bytes = 1.5", "line 1: max_env_bytes: expected a whole number"),
        ("max_pids = 0", "line 1: max_pids: expected a whole number, 1 or more"),
        ("max_pids = true", "line 1: max_pids: expected a whole number, 1 or more"),
        ("max_cpu_cores = nan", "line 1: max_cpu_cores: expected a number above 0"),
        ("max_cpu_cores = inf", "line 1: max_cpu_cores: expected a number above 0"),
        ("max_memory_mib = 5", "line 1: max_memory_mib: expected a whole number of MiB, 6 or more"),
    ],
)
def test_invalid_policies_are_refused(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=rf"^task policy {path}: (?:{error})") as told:
        read_policy(path)
    assert str(told.value).isprintable()


def test_unreadable_policy_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(PolicyError, match="is not UTF-8"):
        read_policy(tmp_path / "latin")
