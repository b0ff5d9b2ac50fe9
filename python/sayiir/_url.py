"""Backends by URL.

Of a URL only the scheme ever gets into a message: the rest may hold a password.
"""

from __future__ import annotations

from .backends import Backend, InMemoryBackend

__all__ = ["open_backend"]

_SCHEMES = "this version has memory://"


def open_backend(url: object) -> Backend:
    """A new backend, for the caller to close.

    Raises:
        TypeError: The URL is not text.
        ValueError: It is malformed, or of a scheme that this version does not have.

    >>> open_backend("memory://")
    <InMemoryBackend with 0 instances>
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, got {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    # What is no scheme may be anything, so it is not shown.
    if not separator or not scheme.isascii() or not scheme.isalnum() or len(scheme) > 32:
        raise ValueError(f"url must begin with a scheme; {_SCHEMES}")
    if scheme.lower() != "memory":
        raise ValueError(f"url has the scheme {scheme!r}, which has no backend; {_SCHEMES}")
    if rest:
        raise ValueError("url must be memory:// with nothing behind it; each has its own instances")
    return InMemoryBackend()
