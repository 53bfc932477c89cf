"""How many threads the BLAS may take."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread(width: int) -> Iterator[None]:
    """Keep the BLAS to one thread where more only slow it down.

    That is for matrices up to 128 wide, and wherever the processors are busy: threads that wait for
    each other lose more than they win (measured: a factor of five with two others on two cores).
    """
    if width > 128 and not _busy():
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def _busy() -> bool:
    """Whether others keep the processors at work."""
    try:
        return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # no such number on this system
        return False
