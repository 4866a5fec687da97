"""A sync of 25 identities against an endpoint that takes 10 mints a minute: only `.ci/full` runs this."""

import subprocess
import time
from pathlib import Path

import pytest
from support.buckets import limited
from support.cli import COMMAND, World


@pytest.mark.parametrize(("workers", "retry_after"), [(16, None), (16, 60), (2, None), (1, None)])
def test_all_are_minted_with_few_requests_in_vain(
    kv2: World, tmp_path: Path, workers: int, retry_after: int | None
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("user_id\n" + "".join(f"{user}\n" for user in range(25)))
    with limited(kv2.endpoint.url, 10, 60, retry_after) as (address, bucket):
        begun = time.monotonic()
        done = subprocess.run(
            [*COMMAND, "sync", "--concurrency", str(workers), str(path)],
            env=kv2.environ | {"KLEARSTACK_URL": address},
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        took = time.monotonic() - begun
    assert (done.returncode, done.stdout, done.stderr) == (0, "25 identities: 25 minted\n", "")
    assert took < 240  # the limit alone takes 120 s
    assert len(bucket.refused) <= 2 * workers
    if retry_after is None:
        assert all(sum(at <= other < at + 60 for other in bucket.refused) <= workers for at in bucket.refused)
