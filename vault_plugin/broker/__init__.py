"""The read-through cache: a valid token comes from Vault; otherwise one is minted, stored, and returned."""

from vault_plugin.broker.broker import Broker
from vault_plugin.broker.grant import Grant, GrantedToken

__all__ = ["Broker", "Grant", "GrantedToken"]
