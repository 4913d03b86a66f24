"""Whether the master takes a task. Pure."""

from fleetpulse.master.errors import TaskRefused
from fleetpulse.master.tasks.records import TaskSpec
from fleetpulse.proto.policy import TaskPolicy, TaskRequest, judge, settle


def allowed(spec: TaskSpec, policy: TaskPolicy) -> TaskSpec:
    """The task as it will be run: with what the policy decides where nothing was said. Raises ``TaskRefused``."""
    wish = TaskRequest(
        image=spec.docker_image,
        command=spec.command,
        env=spec.env,
        cpu_cores=spec.cpu_required,
        memory_bytes=spec.memory_bytes,
        read_only=spec.read_only,
        user=spec.user,
        network=spec.network,
    )
    if refusals := judge(policy, wish):
        raise TaskRefused(refusals)
    return spec._replace(**settle(policy, wish)._asdict())
