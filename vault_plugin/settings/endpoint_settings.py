"""The settings of the way to KlearStack's endpoint."""

from vault_plugin.settings.origin import Declared, Group, setting
from vault_plugin.settings.proxies import Proxy
from vault_plugin.settings.values import endpoint_url


class EndpointSettings(Declared):
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
    proxy: Proxy | None = setting(
        "HTTPS_PROXY",
        "https_proxy",
        group=Group.ENDPOINT,
        help="Proxy for an https endpoint, or `none`; the variable holds for Vault, too.",
        default=None,
        read=Proxy.read,
    )
    no_proxy: str | None = setting(
        "NO_PROXY",
        "no_proxy",
        group=Group.ENDPOINT,
        help="Hosts, domains and networks that are reached without that proxy.",
        flag=False,
        default=None,
    )
    allow_plain_http: bool = setting(
        group=Group.ENDPOINT,
        help="Allow plain http to a remote endpoint, which exposes tokens to the network.",
        default=False,
    )
