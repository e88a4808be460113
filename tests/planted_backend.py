"""A backend `planted`, the CPU's with faults, in a package of its own: LAMB fails, and with dropout it hangs.

What hangs has started a process that left its session; its number is in the file that PLANTED_PID names.
"""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import os, pathlib, subprocess, sys, time
from bertkit_cpu import CpuBackend

class PlantedBackend(CpuBackend):
    name, aliases, preference = "planted", (), -1

    def engine(self, job, world):
        if job.optimizer.algorithm == "lamb":
            raise RuntimeError("a planted fault")
        if job.model.hidden_dropout_prob:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            pathlib.Path(os.environ["PLANTED_PID"]).write_text(str(child.pid))
            time.sleep(600)
        return super().engine(job, world)
"""


def install(folder: Path) -> str:
    """Write the package; a process finds it with the folder that is returned on its PYTHONPATH."""
    about = folder / "bertkit_planted-1.dist-info"
    about.mkdir(parents=True)
    (folder / "bertkit_planted.py").write_text(SOURCE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bertkit-planted\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[bertkit.backends]\nplanted = bertkit_planted:PlantedBackend\n")
    return str(folder)
