"""The learned codec of an early boundary: trained through the frozen rest of the model.

May import: bundle, calibrate, capture, compile, errors, export, kept_files, photo, picture,
progress, relative_error, run, significant; codec.
"""
