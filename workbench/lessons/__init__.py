"""The exercises of the course: their checks, the recorded run they start from, and the builder."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": "build_lessons",
        "checking": "EXERCISES Exercise check examine",
        "recording": "doctor record recorded stale",
    },
)
