"""A world in one thread: random flows, a virtual clock, workers that crash, and a judge."""
