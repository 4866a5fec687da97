"""Locks among the threads and processes of a host: where their files lie, who waits, and what a holder leaves to the next."""
