"""Clocks, deadlines, backoff and rate limiters."""
