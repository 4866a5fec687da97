"""The commands, a file each: parse, call, print. They know click; what they call does not."""
