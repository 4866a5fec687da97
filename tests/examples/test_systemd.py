"""The unit, by systemd's own checks, and its command as the service manager would start it."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.cli import World, kept
from support.leaks import leaked
from support.runners import IDENTITIES, shell
from support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
UNIT = EXAMPLES / "systemd/klearstack-vault-watch.service"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no `systemd-analyze` on PATH"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def with_programs(folder: Path, text: str) -> str:
    """The unit in a copy, whose programs are there: they are not systemd's business."""
    copy = folder / UNIT.name
    copy.write_text(re.sub(r"^(Exec\w+)=\S+", rf"\1={shutil.which('env')}", text, flags=re.MULTILINE))
    return str(copy)


def complaints(folder: Path, text: str) -> list[str]:
    """What systemd says of it; on what else it has loaded from this machine we have no influence."""
    done = analyze("verify", "--man=no", with_programs(folder, text))
    return [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]


@needs_systemd
def test_systemd_takes_the_unit_and_complains_of_a_spoilt_one(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert complaints(tmp_path, text) == []
    for good, bad in (("WatchdogSec=60", "WatchdogSec=often"), ("EnvironmentFile=", "EnvironmentFiles=")):
        assert len(complaints(tmp_path, text.replace(good, bad))) == 1


@needs_systemd
def test_the_service_is_locked_up(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    score = ("security", "--offline=true", "--threshold=20", "--no-pager")  # of 100, where all is exposed
    assert analyze(*score, with_programs(tmp_path, text)).returncode == 0
    open_to_all = re.sub(r"^Protect.*$", "", text, flags=re.MULTILINE)
    assert analyze(*score, with_programs(tmp_path, open_to_all)).returncode != 0


def install(folder: Path, etc: Path, world: World, machine: Mapping[str, str], *, log_in: bool) -> None:
    """Do what README says, with this folder for /etc/klearstack, as far as it is not for a whole machine.

    Without `log_in` Vault's administrator has done nothing, and the files that Vault's login needs are made up.
    """
    here = folder / "examples/systemd"
    shutil.copytree(UNIT.parent, here)
    shutil.copy(EXAMPLES / "manifest.yaml", here.parent)
    if log_in:
        administrator = {"VAULT_ADDR": world.vault.address, "VAULT_TOKEN": world.vault.root_token}
        shell([str(here / "vault-setup.sh")], {**machine, **administrator}, here, check=True)
    else:
        for name in ("role-id", "secret-id"):
            (here / name).write_text("made-up\n")
    block = re.findall(r"```sh\n(.*?)```", (here / "README.md").read_text(), flags=re.DOTALL)[0]
    ours = ("install -d ", "install -m 0640 ", "install -m 0600 ", "printf ", "  >")
    lines = [line for line in block.splitlines() if line.startswith(ours)]
    theirs = {
        "/etc/klearstack": str(etc),
        "-g klearstack": f"-g {os.getgid()}",
        "https://api.example.com": world.endpoint.url,
        "https://vault.example.com:8200": world.vault.address,
    }
    script = "\n".join(lines)
    for text, instead in theirs.items():
        assert text in script
        script = script.replace(text, instead)
    shell(["sh", "-euc", script], machine, here, check=True)
    assert not (here / "secret-id").exists()


class Manager:
    """The service manager: starts the unit's command, and hears what it notifies."""

    def __init__(
        self, folder: Path, world: World, machine: Mapping[str, str], *, log_in: bool = True
    ) -> None:
        self.folder, self.run_folder = folder, folder / "klearstack"
        self.run_folder.mkdir()
        lines = UNIT.read_text(encoding="utf-8").splitlines()
        self.settings = [tuple(line.split("=", 1)) for line in lines if "=" in line and line[0] != "#"]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(60)
        self.said = folder / "said"
        self.etc, credentials = folder / "etc", folder / "credentials"
        install(folder, self.etc, world, machine, log_in=log_in)
        self.manifest = self.etc / "manifest.yaml"
        self.manifest.write_text(self.manifest.read_text().replace("/run/klearstack", str(self.run_folder)))
        credentials.mkdir()
        for credential in self.all_of("LoadCredential"):
            name, _, path = credential.partition(":")
            (credentials / name).write_bytes(
                (self.etc / Path(path).relative_to("/etc/klearstack")).read_bytes()
            )
        (environment_file,) = self.all_of("EnvironmentFile")
        lines = (self.etc / Path(environment_file).relative_to("/etc/klearstack")).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        own = (line.split("=", 1) for line in self.all_of("Environment"))
        assert self.all_of("WatchdogSec") == ["60"]
        self.environ = {
            **kept(),
            **machine,
            **given,
            **{name: text.replace("%d", str(credentials)) for name, text in own},
            "KLEARSTACK_LOCK_DIR": str(folder / "locks"),  # PrivateTmp=
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "200000",  # not a minute, so that it is heard here
        }

    def all_of(self, name: str) -> list[str]:
        return [value for key, value in self.settings if key == name]

    def command(self, setting: str, **variables: str) -> list[str]:
        """The words of an Exec...= line; the program is found on this machine's PATH."""
        (line,) = self.all_of(setting)
        program, *arguments = [
            re.sub(r"^\$(\w+)$", lambda name: variables[name[1]], word) for word in shlex.split(line)
        ]
        return [
            Path(program).name,
            *(one.replace("/etc/klearstack/manifest.yaml", str(self.manifest)) for one in arguments),
        ]

    def heard(self, wanted: str) -> None:
        """Wait until the service notifies that."""
        until(lambda: wanted in self._socket.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._socket.close()


@contextmanager
def started(manager: Manager) -> Iterator[subprocess.Popen[bytes]]:
    with manager.said.open("wb") as said:
        process = subprocess.Popen(
            manager.command("ExecStart"),
            env=manager.environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
def manager(own: World, machine: Mapping[str, str], tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path, own, machine)
    yield made
    made.close()


def test_its_command_writes_the_files_notifies_reloads_and_ends(own: World, manager: Manager) -> None:
    with started(manager) as service:
        manager.heard("READY=1")
        files = {str(path.relative_to(manager.run_folder)): path for path in manager.run_folder.glob("*/*")}
        assert sorted(files) == IDENTITIES
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o640}
        assert {path.read_text().strip() for path in files.values()} <= set(own.endpoint.issued)
        assert own.endpoint.mints == 6
        manager.heard("WATCHDOG=1")
        with manager.manifest.open("a") as manifest:
            manifest.write("  - user_id: 31\n")
        subprocess.run(manager.command("ExecReload", MAINPID=str(service.pid)), check=True)
        manager.heard("RELOADING=1")
        manager.heard("READY=1")
        assert (manager.run_folder / "Acme/31").exists()
        assert own.endpoint.mints == 7
        service.send_signal(signal.SIGTERM)
        manager.heard("STOPPING=1")
        assert service.wait(timeout=60) == 0
    assert leaked(own, own.endpoint, manager.said.read_text()) == []


def test_the_readmes_commands_let_nobody_else_read_ids_and_credentials(
    own: World, machine: Mapping[str, str], tmp_path: Path
) -> None:
    install(tmp_path, tmp_path / "etc", own, machine, log_in=False)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc").iterdir()}
    assert modes.pop("watch.env") & 0o600 == 0o600  # addresses, no secret
    assert modes == {"manifest.yaml": 0o640, "role-id": 0o600, "secret-id": 0o600}
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o750


def test_a_wrong_setting_ends_it_with_a_code_that_is_not_tried_again(
    own: World, machine: Mapping[str, str], tmp_path: Path
) -> None:
    manager = Manager(tmp_path, own, machine, log_in=False)
    manager.environ["KLEARSTACK_URL"] = "http://other.example"
    with started(manager) as service:
        code = service.wait(timeout=60)
    (never_again,) = manager.all_of("RestartPreventExitStatus")
    assert str(code) in never_again.split(), manager.said.read_text()
    manager.close()
