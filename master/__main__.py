"""``python -m fleetpulse.master``. Python puts the working directory first among the places to import from.

It has done so before the line below removes it: a folder ``fleetpulse`` there, or a module that Python itself loads,
would be used. ``python -P -m`` and the script ``fleetpulse`` never look there.
"""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109 - pathlib is not loaded yet, and stays so
    del sys.path[0]

from fleetpulse.master.cli import master_command

master_command(prog_name="python -m fleetpulse.master")
