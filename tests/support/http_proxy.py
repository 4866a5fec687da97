"""A real HTTP proxy: Debian's tinyproxy, which requires a login."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import notes
from support.ports import own_port
from support.waiting import until


@dataclass
class HttpProxy:
    """A running proxy: its address, the same with the login in it, and what it was asked for."""

    address: str
    url: str
    log: Path

    def connects(self) -> list[str]:
        """The servers that it was asked to connect to, each as `host:port`."""
        return re.findall(r"\bCONNECT (\S+) HTTP", self.log.read_text(encoding="utf-8"))


@contextmanager
def tinyproxy(folder: Path, user: str, password: str, *options: str) -> Iterator[HttpProxy]:
    """Run it with this login and further lines of its configuration; skips where the program is missing."""
    program = shutil.which("tinyproxy")
    if program is None:
        raise notes.skipped("tinyproxy is missing", "what goes through a proxy")
    port, log, config = own_port(), folder / f"proxy-{own_port()}.log", folder / "proxy.conf"
    log.touch()
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", f'LogFile "{log}"', "LogLevel Info"]
    lines += [f"BasicAuth {user} {password}", "DisableViaHeader Yes", *options]
    config.write_text("\n".join([*lines, ""]), encoding="utf-8")
    process = subprocess.Popen([program, "-d", "-c", str(config)], stdout=subprocess.DEVNULL)
    try:
        until(lambda: "Accepting connections" in log.read_text() or process.poll() is not None, 20)
        assert process.poll() is None, log.read_text()
        yield HttpProxy(f"http://127.0.0.1:{port}", f"http://{user}:{password}@127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(20)
