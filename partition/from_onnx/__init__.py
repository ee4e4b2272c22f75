"""An ONNX file becomes a torch module, an operation a node, and is held against onnxruntime.

May import: errors, model_spec, relative_error; codec.
"""
