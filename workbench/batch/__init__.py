"""Many runs and whole runs: looked at beforehand, executed, swept and searched."""
