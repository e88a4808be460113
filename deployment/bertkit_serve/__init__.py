"""Trained models over HTTP: `bertkit serve`, and in Python `make_app`.

The protocol's requests and responses are the core's, which its clients use too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bertkit.plugin import ServeOptions, UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bertkit import Predictor


class HttpServer:
    """What `bertkit serve` finds."""

    def serve(self, options: ServeOptions) -> int:
        """Serve until a signal ends it; the exit code. Raises UserError for what cannot be served."""
        _check_installed()
        from bertkit_serve.server import serve_alone
        from bertkit_serve.workers import serve_with_workers

        return serve_alone(options) if options.workers == 1 else serve_with_workers(options)


def make_app(
    runs: Mapping[str, str | Path | Predictor], *, api_key: str = "", options: ServeOptions | None = None
) -> Starlette:
    """An ASGI application that serves these runs by name: folders, or models that `bertkit.load` gave.

    `options`: limits and settings; its own `runs` are passed over. The runs are loaded when the application starts;
    GET /v2/health/ready tells when they are ready.
    """
    _check_installed()
    from bertkit_serve.app import app_for

    return app_for(runs, api_key, options)


def _check_installed() -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed", "pip install 'bertkit[serve]'") from None
