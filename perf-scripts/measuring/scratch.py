"""A directory for one run's brokers: room for it is checked first, and nothing of it stays behind.

Ctrl-C, SIGTERM and failures end in the same way: brokers are killed, their files removed. What a script that was killed
outright has left is removed by the next one. Knows no broker.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile


def _ended(number, _frame):
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def _is_alive(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


def _sweep(parent, prefix):
    for left in parent.glob(f"{prefix}-*-*"):
        pid = left.name.split("-")[-2]
        if pid.isdigit() and not _is_alive(pid):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def directory(parent, prefix, gigabytes, servers=()):
    """A new directory under `parent` on a disk with so much room; `servers` is a list that is filled meanwhile, and whose
    members are ended (`remove()`) before the directory goes.
    """
    parent = pathlib.Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, prefix)
    free = shutil.disk_usage(parent).free / 1e9
    if free < gigabytes:
        raise SystemExit(f"{parent} has {free:.1f} GB free, and this may need {gigabytes:.0f} GB: choose another with --directory, "
                         "or measure less (--size, --seconds)")
    before = {number: signal.signal(number, _ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    made = pathlib.Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=parent))
    try:
        yield made
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        # A second Ctrl-C shall not leave half of it behind.
        for number in (signal.SIGINT, *before):
            signal.signal(number, signal.SIG_IGN)
        for server in servers:
            server.remove()
        shutil.rmtree(made, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, handler in before.items():
            signal.signal(number, handler)
