"""`bertkit/files/processes.py`: a process that is to end with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

END_WITH = "import sys; from bertkit.files.processes import die_with_parent as end; end(int(sys.argv[1])); print('on')"
GONE = 1 << 30  # above the kernel's largest process number

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")


@pytest.mark.parametrize(("parent", "code", "said"), [(os.getpid, 0, "on\n"), (lambda: GONE, -signal.SIGKILL, "")])
def test_a_process_whose_parent_ended_before_it_could_ask_does_not_go_on(parent: object, code: int, said: str) -> None:
    words = [sys.executable, "-c", END_WITH, str(parent())]  # type: ignore[operator]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said), done.stderr
