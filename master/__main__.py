"""``python -m master``."""

from dotenv import load_dotenv

from master.cli import master_command

load_dotenv(".env")
master_command(prog_name="python -m master")
