"""What a run says at its end, whichever worker noticed it: what stood in for what, and what was not tested."""

import pytest

taken: list[str] = []


def take(note: str) -> None:
    """Show this line once at the end of the run."""
    if note not in taken:
        taken.append(note)


def skipped(missing: str, untested: str) -> BaseException:
    """What to raise to skip a test; the run says at its end in one line what is missing and what is not tested for it."""
    take(f"Not tested: {untested}, since {missing}.")
    return pytest.skip.Exception(missing)
