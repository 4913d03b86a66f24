"""``python -m fleetpulse.worker``."""

from fleetpulse.worker.cli import worker_command

worker_command(prog_name="python -m fleetpulse.worker")
