"""A base image made of this machine's own Python, for a Dockerfile whose base no registry gives us here."""

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pip

# A mirror of one's own, as far as pip knows.
_PIP = "[global]\nno-index = true\nfind-links = /wheels\nroot-user-action = ignore\n"
_LEFT_OUT = {
    "EXTERNALLY-MANAGED", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test",
    "tkinter", "turtledemo"
}  # fmt: skip
_NEEDLESS = re.compile(r"config-|(_tkinter|_curses|_test|xxlimited).*\.so$|.*\.opt-\d\.pyc$")


def python_rootfs(wheels: Path) -> tuple[bytes, str]:
    """A tar file with an interpreter, what it links to, /bin/sh and pip, which installs these wheels; its PATH."""
    interpreter = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    ask = "import sysconfig; print(sysconfig.get_path('purelib'), sysconfig.get_path('scripts'))"
    asked = subprocess.run([str(interpreter), "-Ic", ask], capture_output=True, text=True, check=True)
    packages, scripts = asked.stdout.split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        _add(tar, "/tmp", mode=0o1777)
        _add(tar, "/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(tar, "/etc/pip.conf", _PIP.encode())
        _add(tar, f"{scripts}/pip", b'#!/bin/sh\nexec python -m pip "$@"\n', mode=0o755)
        tar.add(interpreter, f"{scripts}/python")
        tar.add("/bin/sh")
        tar.add(stdlib, filter=_slim)
        tar.add(Path(pip.__file__).parent, f"{packages}/pip", filter=_slim)
        tar.add(wheels, "/wheels")
        modules = [path for path in stdlib.glob("lib-dynload/*.so") if not _NEEDLESS.match(path.name)]
        for library in _libraries([interpreter, Path("/bin/sh"), *modules]):
            tar.add(library)
    return content.getvalue(), scripts


def _slim(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(entry.name).name
    return None if name in _LEFT_OUT or _NEEDLESS.match(name) else entry


def _libraries(programs: Iterable[Path]) -> list[str]:
    """What these programs are linked to, by the dynamic loader's own account."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", listed)))


def _add(tar: tarfile.TarFile, name: str, content: bytes | None = None, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name.removeprefix("/"))
    entry.type, entry.mode = (tarfile.DIRTYPE if content is None else tarfile.REGTYPE), mode
    entry.size = len(content or b"")
    tar.addfile(entry, io.BytesIO(content or b""))
