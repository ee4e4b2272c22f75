"""Where models come from: torchvision, a factory of the user's, a file of weights.

May import: bundle, errors, from_onnx, model_spec, picture, quiet, tasks; codec.
"""
