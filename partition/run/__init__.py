"""Running segments: chains of them in onnxruntime and in torch, loaded from a bundle.

May import: bundle, errors; codec.
"""
