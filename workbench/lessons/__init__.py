"""The exercises of the course: their checks, and the recorded runs they start from."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    checking="EXERCISES Exercise check examine",
    recording="doctor recorded stale",
)
