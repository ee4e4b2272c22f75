"""Codecs without tables: plain numbers, quantised ones, pictures; the entropy stage over them.

May import: errors, native, spec.
"""
