"""master.script"""

import subprocess
import sys

PROGRAM = """
import sys
class InterruptingFinder:
    def find_spec(self, name, path=None, target=None):
        if name == "fleetpulse.master.console":
            raise KeyboardInterrupt
sys.meta_path.insert(0, InterruptingFinder())
from fleetpulse.master.script import main
main()
"""


def test_ctrl_c_during_loading_prints_no_traceback() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
