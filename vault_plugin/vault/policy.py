"""The least privilege of each role, as policies of Vault: capabilities on paths of the KV mount."""

from typing import NamedTuple

READER, SYNCER, OPERATOR = "reader", "syncer", "operator"
ROLES = (READER, SYNCER, OPERATOR)


class Rule(NamedTuple):
    """Capabilities on all paths below the prefix; `area` is the part of KV v2's paths between mount and prefix."""

    area: str
    capabilities: tuple[str, ...]

    def place(self, mount: str, path: str) -> str:
        """The path for a policy, or for a question about one."""
        return "/".join(filter(None, (mount, self.area, path)))


# By role and KV version. Without `create` on KV v2's data, Vault rejects a first write whose lifetime was not set before.
_RULES = {
    (READER, 2): (Rule("data", ("read",)),),
    (SYNCER, 2): (Rule("data", ("update", "read")), Rule("metadata", ("create", "update"))),
    (OPERATOR, 2): (Rule("data", ("read",)), Rule("metadata", ("list", "read", "delete"))),
    (READER, 1): (Rule("", ("read",)),),
    (SYNCER, 1): (Rule("", ("create", "update", "read")),),
    (OPERATOR, 1): (Rule("", ("list", "read", "delete")),),
}


def rules(role: str, version: int) -> tuple[Rule, ...]:
    """What a role needs in a mount of that KV version."""
    return _RULES[role, version]


def mount_in(mount: str, namespace: str | None, login: str | None) -> str:
    """The mount in a namespace as a policy in the login's namespace names it, if that is the same or contains it.

    Otherwise the name of the mount alone: then such a policy cannot name it.
    """
    inner, outer = (namespace or "").strip("/"), (login or "").strip("/")
    if inner == outer or not f"{inner}/".startswith(f"{outer}/" if outer else ""):
        return mount
    return f"{inner.removeprefix(outer).strip('/')}/{mount}"


def hcl(role: str, version: int, mount: str, prefix: str) -> str:
    """The policy of a role. Mount and prefix have no characters with a meaning in a policy; see settings/values.py."""
    places = [(rule.place(mount, f"{prefix}/*"), rule.capabilities) for rule in rules(role, version)]
    width = max(len(place) for place, _ in places)
    return "".join(
        f'path "{place}"{"":{width - len(place)}} {{ capabilities = [{_listed(capabilities)}] }}\n'
        for place, capabilities in places
    )


def _listed(capabilities: tuple[str, ...]) -> str:
    return ", ".join(f'"{one}"' for one in capabilities)
