"""One process of several that serve: `python -m bertkit_serve.worker`, told by a line on standard input what to do.

Standard input stays open: when it ends, the process that started this one is gone, and this one drains and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

from bertkit.plugin import ServeOptions, UserError, write_text
from bertkit_serve import logs
from bertkit_serve.service import FOLDER, OPEN


def main() -> int:
    told = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not told:
        return 1
    if told["cpus"] and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # CPUs outside of the cpuset
            os.sched_setaffinity(0, told["cpus"])
    logs.prepare(told["options"]["quiet"], f"[{told['number']}] ")
    threading.Thread(target=_follow_parent, daemon=True).start()
    from bertkit_serve.server import address_of, bound, line_to_try, serve_on
    from bertkit_serve.service import Service

    options = ServeOptions(**told["options"])
    listener = bound(options.host, options.port, shared=True)
    folder, number = Path(os.environ[FOLDER]), told["number"]

    def opens() -> bool:
        (folder / f"loaded-{number}").touch()
        return (folder / OPEN).exists()

    def tell(service: Service) -> None:
        write_text(folder / f"ready-{number}", line_to_try(service, address_of(options, listener)))

    try:
        return serve_on(listener, options, tell, opens)
    except UserError as error:
        print(f"bertkit: {error}", file=sys.stderr)
        return error.exit_code


def _follow_parent() -> None:
    while os.read(0, 4096):  # not through sys.stdin, whose lock Python wants at its end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
