"""A torch module becomes a graph of ATen operations, checked and put into layers.

May import: bundle, errors, quiet; codec.
"""
