"""Sentences chosen by the numbers, one module for each notebook."""
