"""Which part of a manifest this process handles: a stable hash makes the shards of all processes disjoint and complete."""

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from vault_plugin.errors import UsageError
from vault_plugin.tokens.identity import Identity
from vault_plugin.tokens.jwt import Kind


class Shard(NamedTuple):
    """One of `total` shards; `number` counts from 1, as GitLab's index does."""

    number: int
    total: int

    def holds(self, identity: Identity) -> bool:
        """Whether this identity belongs to this shard."""
        digest = sha256(identity.path("", Kind.ACCESS).encode()).digest()
        return int.from_bytes(digest[:8]) % self.total == self.number - 1


def shard(text: str | None, environ: Mapping[str, str] | None = None) -> Shard:
    """Read `I/N`; for `N` alone the index is GitLab's (CI_NODE_INDEX) or Kubernetes' (JOB_COMPLETION_INDEX).

    Without a text, GitLab also sets the total (CI_NODE_TOTAL). Raises UsageError if the result is not a shard, or if
    only an index is known: processing all identities would be a surprise.
    """
    environ = os.environ if environ is None else environ
    if text is None and environ.get("CI_NODE_INDEX") and environ.get("CI_NODE_TOTAL"):
        text = environ["CI_NODE_TOTAL"]
    if text is None:
        if environ.get("JOB_COMPLETION_INDEX"):
            raise UsageError(
                "JOB_COMPLETION_INDEX says which shard this is, but not of how many.",
                hint="Pass --shard N, or --shard 1/1 for all identities.",
            )
        return Shard(1, 1)
    index, slash, total = text.rpartition("/")
    if not slash:
        index = environ.get("CI_NODE_INDEX") or _from_one(environ.get("JOB_COMPLETION_INDEX", ""))
    numbers = [int(part) if re.fullmatch("[0-9]{1,6}", part, re.ASCII) else 0 for part in (index, total)]
    if not 1 <= numbers[0] <= numbers[1]:
        raise UsageError(
            "--shard takes I/N, with I from 1 to N; or N, if CI_NODE_INDEX or JOB_COMPLETION_INDEX is set."
        )
    return Shard(*numbers)


def _from_one(index: str) -> str:
    """Return the index counted from 1; Kubernetes counts from 0."""
    return str(int(index) + 1) if re.fullmatch("[0-9]{1,6}", index, re.ASCII) else ""
