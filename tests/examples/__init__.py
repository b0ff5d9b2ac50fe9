"""The examples: each is run as its reader runs it, killed at a bad moment, and run again."""
