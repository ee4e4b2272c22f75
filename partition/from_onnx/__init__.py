"""An ONNX file becomes a torch module, a layer a node, and is held against onnxruntime.

May import: errors, model_spec, onnx_operators, picture, relative_error, tasks; codec.
"""
