"""How much memory something takes."""

import gc
import os
import traceback
import tracemalloc
import warnings
from collections.abc import Callable


def peak_of(work: Callable[[], object]) -> int:
    """The bytes that are allocated at most while that is done: in a copy of this process, which has no other threads.

    The thread by which a test worker hears from pytest-xdist allocates at any time. What fails there fails here as well.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of locks that other threads may hold
        copy = os.fork()
    if not copy:
        try:
            gc.freeze()  # what is there: looking through it takes long
            gc.set_threshold(700, 10, 10)  # as usual; conftest.py has garbage looked for less often
            tracemalloc.start()
            work()
            os.write(writing, b"%d" % tracemalloc.get_traced_memory()[1])
        except BaseException:  # noqa: BLE001  whatever it is, this process ends here
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(copy, 0)
    assert said, "failed in the copy of this process"
    return int(said)
