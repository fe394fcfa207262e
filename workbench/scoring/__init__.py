"""Scorers: lexical baselines and cross-encoders."""
