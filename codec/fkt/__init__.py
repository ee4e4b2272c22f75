"""The calibrated transform codec: its tables, its coefficients' entropy coder, and its video form.

May import: errors, native, simple, spec.
"""
