"""The health check of the image `serve`: exit code 0 where the server says that it is ready. Needs Python alone."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

URL = "http://127.0.0.1:8000/v2/health/ready"


def is_ready(url: str, seconds: float = 4.0) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the site is not asked
    try:
        with direct.open(url, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(os.environ.get("BERTKIT_HEALTH_URL", URL)) else 1)
