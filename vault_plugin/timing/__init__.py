"""Clocks, deadlines, backoff and rate limits."""
