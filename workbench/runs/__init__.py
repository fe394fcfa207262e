"""Run folders: parameters, records, and comparisons."""
