"""The figures: each function draws on the axes it is given, labels them, and returns them."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(__name__, ranking="*", style="*", training="*")
