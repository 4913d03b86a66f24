"""master.tasks.admission"""

import pytest

from fleetpulse.master.errors import TaskRefused
from fleetpulse.master.tasks.admission import allowed
from fleetpulse.master.tasks.records import TaskSpec
from fleetpulse.proto.policy import TaskPolicy


def test_what_the_policy_decides_is_in_the_task() -> None:
    spec = TaskSpec("busybox", env={"A": "b"}, max_retries=3)
    assert allowed(spec, TaskPolicy()) == spec
    policy = TaskPolicy(read_only_root="forced", user="1000", networks=("none",))
    assert allowed(spec, policy) == spec._replace(read_only=True, user="1000", network="none")
    asked = spec._replace(read_only=True, user="1000", network="none")
    assert allowed(asked, policy) == asked


def test_every_rule_that_is_broken_is_told() -> None:
    spec = TaskSpec("evil/app", cpu_required=3.0, memory_required=2048, user="0")
    policy = TaskPolicy(images=("ghcr.io/**",), max_cpu_cores=2.0, max_memory_mib=1024, require_non_root=True)
    with pytest.raises(TaskRefused) as refused:
        allowed(spec, policy)
    assert [(refusal.rule, refusal.field) for refusal in refused.value.refusals] == [
        ("images", "docker_image"),
        ("max_cpu_cores", "cpu_required"),
        ("max_memory_mib", "memory_required"),
        ("require_non_root", "user"),
    ]
    assert "docker_image is docker.io/evil/app:latest, which is not allowed; allowed are: ghcr.io/**" in str(
        refused.value
    )
