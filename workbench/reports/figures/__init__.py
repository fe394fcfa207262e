"""Figures, one module for each notebook."""
