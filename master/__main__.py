"""``python -m fleetpulse.master``."""

from fleetpulse.master.cli import master_command

master_command(prog_name="python -m fleetpulse.master")
