"""The settings of the way to KlearStack's endpoint."""

from dataclasses import dataclass

from vault_plugin.settings.origin import Group, setting
from vault_plugin.settings.values import endpoint_url


# Only Settings is instantiated, so that the methods of its bases need not be generated, which takes time at each start.
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class EndpointSettings:
    """Where the endpoint is, and how it is reached."""

    url: str = setting(
        "KLEARSTACK_URL",
        group=Group.ENDPOINT,
        help="Base URL of the KlearStack API.",
        read=endpoint_url,
    )
    ca_cert: str | None = setting(
        "KLEARSTACK_CACERT",
        group=Group.ENDPOINT,
        help="PEM file of the endpoint's CA, if it is not a public one.",
        default=None,
    )
    allow_plain_http: bool = setting(
        group=Group.ENDPOINT,
        help="Allow plain http to a remote endpoint, which exposes tokens to the network.",
        default=False,
    )
