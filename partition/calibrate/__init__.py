"""Fitting codecs and int8 segments to a model on pictures of its kind, and judging what they lose.

May import: bundle, errors, progress, relative_error, run; codec.
"""
