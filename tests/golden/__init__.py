"""Bytes of every released format, kept for ever, and what they stand for."""
