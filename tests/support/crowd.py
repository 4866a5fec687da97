"""Many processes at once that want the same token."""

import subprocess

from support.cli import World, start


def assert_one_mint(world: World, count: int, *arguments: str, stdin: str = "") -> None:
    """So many processes with these arguments print the same, for one mint."""
    before = world.endpoint.mints
    given = world.home / "stdin"
    given.write_text(stdin)
    processes = []
    for _ in range(count):
        with given.open() as file:
            processes.append(
                start(
                    *arguments,
                    environ=world.environ,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
    ended = [(*process.communicate(timeout=180), process.returncode) for process in processes]
    assert {(err, code) for _, err, code in ended} == {("", 0)}
    assert len({out for out, _, _ in ended}) == 1
    assert world.endpoint.mints == before + 1
