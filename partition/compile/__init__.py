"""A captured model becomes a bundle: segments written, verified, and put together.

May import: bundle, calibrate, capture, cuts, errors, export, model_spec, progress,
relative_error, run, tasks; codec.
"""
