"""Real processes, real signals: workers and clients are killed, stopped and raced, then checked."""
