"""The command ``searchapp``, each call a process that is forked from one which has imported the command's modules.

Importing them is most of a call's time. What a call reads and prints, its environment, its folder and its end are its
own, as any process's are. Tests of how a process starts (what it imports, how it is killed) start one themselves.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

Done = subprocess.CompletedProcess[str]

ROOT = Path(__file__).parent.parent
_one_at_a_time = threading.Lock()


def run_command(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: dict[str, str],
    stdin: bytes = b"",
    stdout: int | None = None,
    timeout: float = 120,
) -> Done:
    """Run the command in a folder; what it printed and its exit code, negative where a signal ended it.

    :param environment: all of it.
    :param stdout: a file descriptor for what it prints, instead of a pipe.
    :raises subprocess.TimeoutExpired: it took longer than so many seconds, and was killed.
    """
    (its_in, to), (out, its_out), (err, its_err) = os.pipe(), os.pipe(), os.pipe()
    with _connect() as call, call.makefile("rb") as told, ThreadPoolExecutor(3) as pool:
        socket.send_fds(call, [b"."], [its_in, its_out if stdout is None else stdout, its_err])
        for descriptor in (its_in, its_out, its_err):
            os.close(descriptor)
        request = {"arguments": list(arguments), "folder": str(folder), "environment": environment}
        call.sendall(json.dumps(request).encode() + b"\n")
        deadline = threading.Timer(timeout, os.kill, (int(told.readline()), signal.SIGKILL))
        deadline.start()
        pool.submit(_write, to, stdin)
        printed, complaints = pool.map(_read, (out, err))
        code = int(told.readline())
        expired = not deadline.is_alive()
        deadline.cancel()
    if expired:
        raise subprocess.TimeoutExpired(list(arguments), timeout, printed, complaints)
    return Done(list(arguments), code, printed.decode(), complaints.decode())


def _write(descriptor: int, content: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as file:
        file.write(content)


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _connect() -> socket.socket:
    """A connection to a process of its own that waits to be a call of the command."""
    ours, theirs = socket.socketpair()
    with theirs, _one_at_a_time:
        socket.send_fds(_origin(), [b"."], [theirs.fileno()])
    return ours


@cache
def _origin() -> socket.socket:
    """The connection to the process that all calls are forked from; it ends with this one."""
    ours, theirs = socket.socketpair()
    # OpenBLAS's threads would not be in a fork; a process that has none of them forks as if it had just been started.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.forking", str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _wait_for_call(control: socket.socket) -> dict[str, Any]:
    """Fork for every call; return, in the fork alone, what is called, with the call's own streams in place."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)
        with suppress(ChildProcessError):  # there is none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not os.fork():
            control.close()
            with socket.socket(fileno=descriptors[0]) as call:
                return _answer(call)
        os.close(descriptors[0])


def _answer(call: socket.socket) -> dict[str, Any]:
    """Read a call and fork once more; return in that fork alone. The process between tells how it ends."""
    _, streams, _, _ = socket.recv_fds(call, 1, 3)
    with call.makefile("rb") as said:
        request: dict[str, Any] = json.loads(said.readline())
    if pid := os.fork():
        for descriptor in streams:
            os.close(descriptor)
        call.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        call.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    for place, descriptor in enumerate(streams):
        os.dup2(descriptor, place)
        os.close(descriptor)
    return request


def _become(request: dict[str, Any]) -> None:
    """Be the call: in its folder, in its environment, with its arguments."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    sys.argv = ["searchapp", *request["arguments"]]
    # As the interpreter opens them: those of the origin remember what lay behind the descriptors before.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    runpy.run_module("searchapp", run_name="__main__")


if __name__ == "__main__":
    import searchapp.cli.app  # noqa: F401  # what is not to be imported again

    _become(_wait_for_call(socket.socket(fileno=int(sys.argv[1]))))
