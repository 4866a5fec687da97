"""What is withheld from other programs and from other Vaults: whatever leads to tokens that are not theirs."""

from collections.abc import Mapping

from vault_plugin.settings.declarations import ORIGINS
from vault_plugin.settings.environment import without
from vault_plugin.settings.gathering import Flags
from vault_plugin.settings.origin import Group, Origin, without_logins

# What settings of these groups say holds for each Vault. A setting of any other group is about one Vault alone.
_SHARED = {Group.IDENTITY, Group.TOKEN, Group.ENDPOINT, Group.VAULT_STORAGE, Group.LIMITS}

# What only a login to Vault needs, and a proxy whose URL may contain a login.
_OF_LOGINS = {"actions_url", "vault_proxy"}


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """For another program: the environment without logins to Vault, without its proxy and without the identity.

    An identity is all that KlearStack's endpoint asks for. `HTTPS_PROXY` is kept, which other programs need as well.
    """
    withheld = {variable for name in _OF_LOGINS for variable in ORIGINS[name].env}
    return without(without_logins(environ, ORIGINS), withheld)


def for_another_vault(environ: Mapping[str, str], flags: Flags) -> tuple[dict[str, str], Flags]:
    """Environment and flags without what belongs to the Vault that they name: the way to it, and logins.

    `HOME` is left out as well, where `vault login` leaves a token.
    """
    kept = {name for name, one in ORIGINS.items() if _is_shared(one)}
    withheld = {variable for name, one in ORIGINS.items() if name not in kept for variable in one.env}
    return without(environ, withheld | {"HOME"}), {name: flags[name] for name in flags if name in kept}


def _is_shared(origin: Origin) -> bool:
    return origin.group in _SHARED and not origin.secret
