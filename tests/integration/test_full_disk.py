"""Real file systems that are full or read-only: the documented code, the token safe in Vault, and no half a file."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from support.cli import World
from support.namespaces import in_namespace

FULL = "No space left on device"
READ_ONLY = "Read-only file system"


def mounted(place: Path, options: str = "size=16k") -> str:
    """Mount one there, in bash."""
    return f"mkdir -p {place}; mount -t tmpfs -o mode=700,{options} none {place}\n"


def fill(place: Path) -> str:
    """Use up its room, in bash."""
    return f"! head -c 64k /dev/zero 2>/dev/null >{place}/ballast\n"


def test_a_full_folder_keeps_the_old_file_and_the_token_stays_in_vault(kv2: World) -> None:
    place = kv2.home / "full"
    script = f"""{mounted(place)} echo old >{place}/token
        {fill(place)}
        code=0; klearstack get --output {place}/token || code=$?
        echo $code; cat {place}/token; ls -A {place}
        rm {place}/ballast
        klearstack get --output {place}/token; cat {place}/token; ls -A {place}
    """
    done = in_namespace(kv2, script)
    token = kv2.endpoint.issued[1]
    assert done.stdout.split() == ["74", "old", "ballast", "token", token, "token"]
    assert done.stderr == f"klearstack-vault: {place}/token cannot be written ({FULL}).\n"
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)


def test_a_report_that_does_not_fit_ends_the_run_with_whole_lines_and_costs_no_token(kv2: World) -> None:
    """4 KiB are left, which the seventh line would exceed."""
    place, path = kv2.home / "full", kv2.home / "manifest.csv"
    path.write_text("user_id\n" + "".join(f"{user:0500}\n" for user in range(10)))
    script = f"""{mounted(place)} echo old >{place}/report
        {fill(place)}
        code=0; klearstack sync --concurrency 1 --report {place}/report {path} || code=$?
        cat {place}/report; echo $code; ls -A {place}
        klearstack sync {path}
    """
    done = in_namespace(kv2, script)
    assert done.stderr == f"klearstack-vault: {place}/report cannot be written ({FULL}).\n"
    *lines, code, ballast, report, summary = done.stdout.splitlines()
    assert [json.loads(line)["result"] for line in lines] == ["minted"] * 6
    assert (code, ballast, report) == ("74", "ballast", "report")
    assert summary == "10 identities: 7 fresh, 3 minted"
    assert (done.returncode, kv2.endpoint.mints) == (0, 10)


def test_watch_writes_a_token_file_as_soon_as_there_is_room(kv2: World) -> None:
    place, path, said = kv2.home / "full", kv2.home / "watched.yaml", kv2.home / "said"
    path.write_text(f"identities:\n  - user_id: '26'\n    file: {place}/token\n")
    said.touch()  # `grep` may be faster than what is started in the background
    script = f"""{mounted(place)} {fill(place)}
        {shlex.quote(sys.executable)} -m vault_plugin watch {path} 2>{said} & watch=$!
        until grep -q 'Retrying' {said}; do sleep 0.05; done
        ls -A {place}
        rm {place}/ballast
        until test -s {place}/token; do sleep 0.05; done
        cat {place}/token; echo; ls -A {place}
        kill -TERM $watch; wait $watch
    """
    done = in_namespace(kv2, script)
    assert done.stdout.split() == ["ballast", kv2.endpoint.issued[1], "token"]
    assert f"{place}/token cannot be written ({FULL})." in said.read_text()
    assert (done.returncode, done.stderr, kv2.endpoint.mints) == (0, "", 1)


def test_the_file_of_exec_is_put_where_there_is_room_and_nowhere_is_an_error(kv2: World) -> None:
    runtime, memory = kv2.home / "run", Path("/dev/shm")
    command = """klearstack exec --as-file -- \\
        sh -c 'echo $KLEARSTACK_ACCESS_TOKEN_FILE; cat $KLEARSTACK_ACCESS_TOKEN_FILE; echo'"""
    script = f"""mount --bind {kv2.home} {kv2.home}; {mounted(runtime)} {mounted(memory)} {fill(runtime)}
        {command}
        {fill(memory)}
        for other in / /tmp /var/tmp; do mount -o remount,ro,bind $other 2>/dev/null || true; done
        code=0; {command} || code=$?
        echo $code; ls -A {runtime} {memory}
    """
    # Coverage could not write its data there, and would say so.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    done = in_namespace(kv2, script, XDG_RUNTIME_DIR=str(runtime), **unmeasured)
    path, token, code, *left = done.stdout.split()
    assert path.startswith(f"{memory}/klearstack-vault-exec-")
    assert (token, code) == (kv2.endpoint.issued[1], "73")
    assert left == [f"{memory}:", "ballast", f"{runtime}:", "ballast"]
    assert done.stderr == f"klearstack-vault: No folder can be created for the token file ({READ_ONLY}).\n"
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)


@pytest.mark.parametrize("mode", ["700", "1777"], ids=["private", "shared"])
def test_a_lock_folder_without_room_for_a_file_costs_no_token(kv2: World, mode: str) -> None:
    locks = kv2.home / "locks"
    kv1 = World(kv2.endpoint, kv2.vault, kv2.vault.mount("v1"), kv2.home)
    script = f"""{mounted(locks, f"nr_inodes=1,mode={mode}")}
        klearstack get --renew
        code=0; KLEARSTACK_VAULT_MOUNT={kv1.mount} klearstack get || code=$?
        echo $code
    """
    done = in_namespace(kv2, script)
    assert done.stdout.split() == [kv2.endpoint.issued[1], "73"]
    assert done.stderr.count(f"No lock file can be created in {locks} ({FULL}).") == 2
    assert done.stderr.count("WARNING") == 1
    assert (done.returncode, kv2.endpoint.mints) == (0, 1)


def test_a_lock_file_without_room_for_a_memo_is_a_lock_all_the_same(kv2: World) -> None:
    locks = kv2.home / "locks"
    script = f"{mounted(locks)} {fill(locks)} klearstack get --renew; klearstack get --renew; cat {locks}/???"
    done = in_namespace(kv2, script)
    assert done.stdout.split() == [kv2.endpoint.issued[1], kv2.endpoint.issued[3]]
    assert (done.returncode, done.stderr, kv2.endpoint.mints) == (0, "", 2)


def test_what_is_read_only_is_refused_before_a_mint(kv2: World) -> None:
    place, path = kv2.home / "read-only", kv2.home / "manifest.csv"
    path.write_text("user_id\n26\n")
    script = f"""{mounted(place)} echo old >{place}/token; mount -o remount,ro {place}
        for command in "get --output {place}/token" "get --output {place}/new" "sync --report {place}/report {path}"; do
            code=0; klearstack $command || code=$?
            echo $code
        done
        code=0; KLEARSTACK_LOCK_DIR={place} klearstack get || code=$?
        echo $code; cat {place}/token; ls -A {place}
    """
    done = in_namespace(kv2, script)
    assert done.stdout.split() == ["73", "73", "73", "73", "old", "token"]
    assert done.stderr.count(f"No file can be created in {place} ({READ_ONLY}).") == 3
    assert done.stderr.count(f"No lock file can be created in {place} ({READ_ONLY}).") == 1
    assert (done.returncode, kv2.endpoint.requests) == (0, 0)
