"""``python -m fleetpulse.master``."""

from dotenv import load_dotenv

from fleetpulse.master.cli import master_command

load_dotenv(".env")
master_command(prog_name="python -m fleetpulse.master")
