"""Many runs and whole runs: looked at beforehand, executed, swept and searched."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(__name__, execute="run_chain")
