"""The commands, one file each: parse, call, print. Only they and cli.py import click."""
