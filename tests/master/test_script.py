"""master.script"""

import subprocess
import sys

PROGRAM = """
import sys
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "fleetpulse.master.console":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
from fleetpulse.master.script import main
main()
"""


def test_ctrl_c_while_it_loads_is_no_traceback() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
