"""Metrics, uncertainty, and what a model is measured against."""
