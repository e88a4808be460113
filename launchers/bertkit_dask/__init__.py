"""Tasks on the workers of a Dask cluster: `--cluster dask`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bertkit.plugin import UserError, Workers

INSTALL = "pip install 'bertkit[dask]'"


class DaskCluster:
    """The workers of a Dask scheduler. Importing this imports nothing of Dask."""

    @contextlib.contextmanager
    def connect(self, address: str | None) -> Iterator[Workers]:
        """Raises UserError where Dask is not installed, no scheduler answers, or it has no workers."""
        try:
            from bertkit_dask.client import connected
        except ImportError as error:
            raise UserError(f"--cluster dask needs Dask's distributed: {error}", INSTALL) from None
        with connected(address) as workers:
            yield workers
