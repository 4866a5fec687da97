"""What is seen of us in /proc, what we wait for as PID 1, and that what can be refused costs no request."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support import notes
from support.cli import COMMAND, World
from support.fault_proxy import FaultProxy
from support.waiting import until


def as_pid_1() -> list[str]:
    """What runs a command as PID 1; skips where this user may not."""
    prefix = [str(shutil.which("unshare")), "--pid", "--fork", "--mount-proc", "--kill-child"]
    tried = (
        subprocess.run([*prefix, "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if tried is None or tried.returncode:
        raise notes.skipped(
            "no process can be PID 1 here (it takes unshare and root)", "what PID 1 waits for"
        )
    return prefix


def state(process: str) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "gone"


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


LEAVE_ORPHANS = "for i in 1 2 3; do sh -c 'sleep 0.05 & sleep 0.01 &'; done"


def test_exec_as_pid_1_waits_for_what_its_command_leaves_behind(kv2: World) -> None:
    look = 'for i in $(seq 100); do sleep 0.1; grep -sh " Z 1 " /proc/[0-9]*/stat || { echo none; exit 7; }; done'
    done = subprocess.run(
        [
            *as_pid_1(),
            *COMMAND,
            "exec",
            "--as-file",
            "--",
            "sh",
            "-c",
            f"{LEAVE_ORPHANS}; {look} | tail -1; exit 9",
        ],
        env=kv2.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "none\n", "")


def test_otherwise_exec_leaves_them_to_whoever_is_pid_1(kv2: World) -> None:
    done = kv2.run("exec", "--as-file", "--", "sh", "-c", f"{LEAVE_ORPHANS}; exit 9")
    assert (done.returncode, done.stderr) == (9, "")


def test_watch_as_pid_1_waits_for_them_and_has_its_hooks_exit_code(kv2: World) -> None:
    log = kv2.home / "log"
    hook = kv2.home / "hook"
    hook.write_text(f"#!/bin/sh\n{LEAVE_ORPHANS}\necho done >>{log}\nexit 7\n")
    hook.chmod(0o700)
    manifest = kv2.home / "manifest.yaml"
    manifest.write_text(f"identities:\n- {{user_id: 1, company_name: A, file: {kv2.home}/token}}\n")
    with subprocess.Popen(
        [*as_pid_1(), *COMMAND, "watch", str(manifest), "--on-change", str(hook)],
        env=kv2.environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(log.exists)
            (init,) = children_of(process.pid)
            until(lambda: children_of(int(init)) == [])
        finally:
            os.kill(int(children_of(process.pid)[0]), signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert "the --on-change command exited with code 7" in err


def test_the_parent_that_waits_shows_no_credential_and_no_name(kv2: World) -> None:
    before = {name: text for name, text in kv2.environ.items() if name != "KLEARSTACK_USER_ID"}
    with subprocess.Popen(
        [
            *COMMAND,
            "exec",
            "--as-file",
            "--user-id",
            "user-4711",
            "--",
            "sh",
            "-c",
            "echo $$ $PPID; exec sleep 60",
        ],
        env=before | {"VAULT_SECRET_ID": "CANARY-secret-id"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        command, parent = map(int, process.stdout.readline().split())
        shown = [
            Path(f"/proc/{one}/{what}").read_text()
            for one in (parent, command)
            for what in ("environ", "cmdline")
        ]
        open_files = [str(one.readlink()) for one in Path(f"/proc/{parent}/fd").iterdir()]
        process.terminate()
    assert parent == process.pid
    for secret in (kv2.vault.root_token, "CANARY-secret-id", "user-4711", "Acme", *kv2.endpoint.issued):
        assert not any(secret in text for text in shown), secret
    assert "VAULT_ADDR" in shown[0]
    assert sum(name.startswith("pipe:") for name in open_files) == 1  # standard output alone


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("get", "--format", "header", "--token", "refresh"), 64),
        (("get", "--format", "header", "--token", "both"), 64),
        (("get", "--format", "curl", "--token", "refresh"), 64),
        (("get", "--format", "curl", "--token", "both", "--renew"), 64),
        (("exec", "--", "no-such-program"), 127),
        (("exec", "--", "/no/such/program"), 127),
        (("exec", "--as-file", "--", "/no/such/program"), 127),
        (("exec", "--", "/etc/passwd"), 126),
        (("exec", "--as-file", "--", "/etc"), 126),
        (("watch", "MANIFEST", "--on-change", "no-such-program"), 64),
        (("get", ">&-"), 74),
        (("get", "--format", "json", ">&-"), 74),
        (("get", "--output", "-", ">&-"), 74),
        (("get", "--output", "/dev/stdout", ">&-"), 74),
        (("sync", "MANIFEST", ">&-"), 74),
        (("sync", "--report", "-", "MANIFEST", ">&-"), 74),
        (("helper", "exec-credential", ">&-"), 74),
        (("terraform", ">&-"), 74),
        (("terraform", "<&-"), 76),
    ],
    ids=str,
)
def test_what_can_be_refused_costs_no_request(kv2: World, arguments: tuple[str, ...], code: int) -> None:
    manifest = kv2.home / "manifest.yaml"
    manifest.write_text("identities:\n- {user_id: 1, company_name: A}\n")
    redirection = arguments[-1] if "&-" in arguments[-1] else ""
    words = [str(manifest) if one == "MANIFEST" else one for one in arguments if one != redirection]
    with FaultProxy(kv2.vault.address) as vault, FaultProxy(kv2.endpoint.url) as endpoint:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *words],
            env=kv2.environ | {"VAULT_ADDR": vault.address, "KLEARSTACK_URL": endpoint.address},
            input=b'{"user_id": "26", "company_name": "Acme"}',
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code
        assert (vault.connections(), endpoint.connections()) == (0, 0)
