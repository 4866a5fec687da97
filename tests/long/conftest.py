"""What the long tests of Terraform share with the short ones."""

from support.roots import examples, root, terraform

__all__ = ["examples", "root", "terraform"]
