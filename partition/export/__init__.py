"""A part of the graph becomes an ONNX model.

May import: bundle, capture, errors, quiet; codec.
"""
