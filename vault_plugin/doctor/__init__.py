"""Looks at each part that a token depends on, and says what is wrong with it and what to do, without a mint."""
