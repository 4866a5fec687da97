"""Terraform, prepared once per run, and root modules for it."""

from support.roots import examples, root, terraform

__all__ = ["examples", "root", "terraform"]
