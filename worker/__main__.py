"""``python -m fleetpulse.worker``."""

from dotenv import load_dotenv

from fleetpulse.worker.cli import worker_command

load_dotenv(".env")
worker_command(prog_name="python -m fleetpulse.worker")
