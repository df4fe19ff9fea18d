"""Human-pose networks, trained and run fast, with the official implementations' numbers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.backend import backend_status, set_backend, use_backend

__version__ = "0.1.0"
__all__ = ["__version__", "backend_status", "set_backend", "use_backend"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fastpose import backend

        return getattr(backend, name)
    raise AttributeError(f"module 'fastpose' has no attribute {name!r}")
