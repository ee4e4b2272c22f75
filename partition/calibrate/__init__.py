"""Fitting codecs and int8 segments to a model on pictures of its kind, and judging what they lose.

May import: bundle, errors, look, progress, run, tasks; codec.
"""
