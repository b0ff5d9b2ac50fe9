"""What every released schema says of itself, as it is written in the file's header."""

APPLICATION_ID = 0x53595253
"""`SYRS`, as all sealed bytes begin."""
VERSION = 2
"""The newest that this program writes."""
