"""`demo` and `simulate`: to try things out on loopback."""

from typing import Any

import click

from vault_plugin.errors import OutputError, UsageError
from vault_plugin.output.streams import require_output


@click.command()
def demo() -> None:
    """Show all this on a real OpenBao and a simulated endpoint, on loopback, in under 20 seconds."""
    from vault_plugin.demo import tour as story  # noqa: PLC0415  its servers are no warm read's business

    require_output()
    story.run(click.echo)


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option(
    "--access-ttl", type=float, default=900.0, show_default=True, help="Seconds that access tokens live."
)
@click.option(
    "--refresh-ttl", type=float, default=172800.0, show_default=True, help="Seconds that refresh tokens live."
)
@click.option("--latency", type=float, default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--fault", metavar="NAME", default="", help="Go wrong in one way; `list` lists them.")
@click.option("--fault-count", type=click.IntRange(min=1), help="Only that many times.  [default: always]")
def simulate(**options: Any) -> None:
    """Serve KlearStack's endpoint on loopback. Prints its URL; GET /simulator/stats counts the mints."""
    from vault_plugin.demo.faults import FAULTS  # noqa: PLC0415  as above
    from vault_plugin.demo.simulator import Simulator  # noqa: PLC0415  as above

    if options["fault"] == "list":
        click.echo("\n".join(f"{name:24} {fault.does}" for name, fault in sorted(FAULTS.items())))
        return
    if options["fault"] and options["fault"] not in FAULTS:
        raise UsageError("There is no such fault.", hint="`--fault list` lists them.")
    require_output()
    try:
        simulator = Simulator(**options)
    except OSError as exc:
        raise OutputError(f"Port {options['port']} cannot be listened on ({exc.strerror}).") from None
    click.echo(simulator.url)
    simulator.serve_forever()
