"""Where models come from: torchvision, a factory of the user's, a file of weights.

May import: errors, model_spec, picture, quiet; codec.
"""
