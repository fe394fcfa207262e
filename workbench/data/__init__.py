"""Labelled pairs, their splits, and candidate lists."""
