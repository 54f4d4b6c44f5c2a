"""The embedded server against the system: users, permissions, kills, races. Run it as root and as somebody else."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from searchapp import embedded, errors

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]

# Of the package only this module: the others take a second to import, and another user may lack what they need.
STARTING = (
    "import sys, types; from pathlib import Path; package = sys.modules['searchapp'] = types.ModuleType('searchapp');"
    f"package.__path__ = [{str(REPOSITORY / 'searchapp')!r}]; from searchapp import embedded; home = Path(sys.argv[1]);"
)

only_root = pytest.mark.skipif(not ROOT, reason="only root can act as another user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel has no PR_SET_PDEATHSIG")


def clear(home: Path) -> None:
    """Stop the server and delete what it keeps outside ``home`` too."""
    embedded.stop(home)
    place = home / "postgresql"
    for link in (place / "sockets", place):
        if link.is_symlink():
            shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home below tmp_path, whose mode is 0700: root's server cannot get there."""
    yield tmp_path / "home"
    clear(tmp_path / "home")


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A home that every user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="searchapp-test-"))
    folder.chmod(0o755)
    yield folder / "home"
    clear(folder / "home")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("prepared") / "home"
    embedded.start(home)
    yield home
    clear(home)


@pytest.fixture
def old_home(prepared_home: Path) -> Iterator[Path]:
    """A home of former days, whose server is stopped; tests leave it able to start."""
    embedded.stop(prepared_home)
    yield prepared_home
    embedded.stop(prepared_home)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a running server, for tests that leave both as they are."""
    home = tmp_path_factory.mktemp("shared") / "home"
    embedded.start(home, follow_parent=True)
    yield home
    clear(home)


def conninfo(parameters: dict[str, str | int]) -> str:
    return make_conninfo("", **parameters)


def connect(parameters: dict[str, str | int], **more: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo(parameters | more), autocommit=True)


def scalar(parameters: dict[str, str | int], query: Any) -> Any:
    with connect(parameters) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def data(home: Path) -> Path:
    place = embedded.folder(home)
    assert place is not None
    return place / "data"


def postmaster(home: Path) -> int:
    return int((data(home) / "postmaster.pid").read_text().split()[0])


def ended(pid: int) -> bool:
    """Whether the process ends within five seconds; a zombie, whom nobody waits for, has ended."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def in_python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Run ``code`` in another process, with the starting line before it."""
    command = [options.pop("python", sys.executable), "-c", STARTING + code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:]])}
    environment |= options.pop("environment", {})
    return subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1, cwd="/", **options)


def result(process: subprocess.Popen[str]) -> str:
    output, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    return output


def python_of(uid: int) -> dict[str, Any]:
    """Options of ``in_python`` to run as another user, who must get to a Python of our version and to the packages."""
    who: dict[str, Any] = {"user": uid, "group": 65534, "extra_groups": []}
    version = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            result(in_python("import psycopg", "-", python=python, **who))
        except (OSError, AssertionError):
            continue
        return {"python": python, **who}
    pytest.skip(f"user id {uid} gets to no {version} with psycopg")


def other_user() -> int:
    """A user who is neither root nor runs the server."""
    for name in ("games", "daemon", "bin"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    pytest.skip("no third user in the system's list")


def test_second_start_returns_the_same_parameters_at_once(old_home: Path) -> None:
    first = embedded.start(old_home)
    began = time.perf_counter()
    assert embedded.start(old_home) == first
    assert time.perf_counter() - began < 0.1
    assert scalar(first, "SELECT current_user || '@' || current_database()") == "searchapp@searchapp"
    assert embedded.is_running(old_home)
    assert embedded.stop(old_home)
    assert not embedded.is_running(old_home)
    assert not embedded.stop(old_home)


def test_server_is_set_up_as_documented(shared_home: Path) -> None:
    parameters = embedded.start(shared_home)
    for name, value in {
        "listen_addresses": "",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "jit": "off",
        "max_wal_size": "2GB",
    }.items():
        assert scalar(parameters, psycopg.sql.SQL("SHOW {}").format(psycopg.sql.Identifier(name))) == value
    locale = "SELECT datlocprovider::text || ' ' || datlocale FROM pg_database WHERE datname = current_database()"
    assert scalar(parameters, locale) == "b C.UTF-8"
    assert (
        scalar(parameters, "SELECT count(*) FROM pg_hba_file_rules WHERE type <> 'local' AND auth_method <> 'reject'")
        == 0
    )


@pytest.mark.parametrize("memory", ["posix", "mmap"])
def test_vector_index_is_built_by_parallel_workers(old_home: Path, memory: str) -> None:
    parameters = embedded.start(old_home, settings={"dynamic_shared_memory_type": memory, "fsync": "off"})
    messages = []
    with connect(parameters) as connection:
        connection.add_notice_handler(lambda message: messages.append(str(message.message_primary)))
        connection.execute("DROP SCHEMA IF EXISTS space CASCADE; CREATE SCHEMA space; SET search_path = space")
        connection.execute("CREATE EXTENSION vector")
        assert connection.execute("SHOW hnsw.iterative_scan").fetchone() == ("strict_order",)
        connection.execute(
            "CREATE TABLE points AS SELECT ARRAY[i % 97, i % 89, i]::vector(3) AS v FROM generate_series(1, 3000) i"
        )
        connection.execute("SET min_parallel_table_scan_size = 0; SET client_min_messages = debug1")
        connection.execute("CREATE INDEX ON points USING hnsw (v vector_l2_ops)")
    assert [message for message in messages if "parallel workers" in message]


def test_starts_at_once_from_four_processes_make_one_server(home: Path) -> None:
    processes = [in_python("print(embedded.start(home))", home) for _ in range(4)]
    assert len({result(process) for process in processes}) == 1
    assert (home / "postgresql.log").read_text().count("database system is ready to accept connections") == 1


def test_starts_and_stops_that_race_leave_no_second_server(home: Path) -> None:
    embedded.start(home)
    processes = [in_python(f"[embedded.{act}(home) for _ in range(5)]", home) for act in ("start", "stop", "start")]
    for process in processes:
        result(process)
    assert scalar(embedded.start(home), "SELECT 1") == 1
    log = (home / "postgresql.log").read_text()
    assert "FATAL:  lock file" not in log
    assert "pre-existing shared memory" not in log


def test_present_folders_keep_mode_and_owner(tmp_path: Path) -> None:
    present = tmp_path / "a" / "home"
    present.mkdir(parents=True)
    present.chmod(0o750)

    def described() -> list[tuple[int, int, int]]:
        return [(s.st_mode, s.st_uid, s.st_gid) for s in map(Path.stat, (present, *present.parents, Path("/var/lib")))]

    before = described()
    try:
        embedded.start(present)
        assert described() == before
    finally:
        clear(present)


def test_new_folders_belong_to_whom_they_serve(home: Path) -> None:
    embedded.start(home)
    place = embedded.folder(home)
    assert place is not None
    programs = embedded.binary(home, "postgres")
    assert {path.lstat().st_uid for path in (home, place, programs, *programs.parents[:3])} == {os.geteuid()}
    assert stat.S_IMODE(home.stat().st_mode) == stat.S_IMODE(place.stat().st_mode) == (0o711 if ROOT else 0o700)
    for private in (place / "data", place / "sockets"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert (private.stat().st_uid == os.geteuid()) is not ROOT
    assert stat.S_IMODE((home / "postgresql.log").stat().st_mode) == 0o600


@only_root
def test_another_user_can_neither_connect_nor_read_the_data(open_home: Path) -> None:
    parameters = embedded.start(open_home)
    uid = other_user()
    place = embedded.folder(open_home)
    assert place is not None
    assert place.parent == open_home
    user = {"user": uid, "group": 65534, "extra_groups": []}
    for private in ("data", "sockets"):
        assert subprocess.run(["ls", place / private], stderr=-1, check=False, **user).returncode  # type: ignore[call-overload]
    connecting = "import psycopg; psycopg.connect(sys.argv[2])"
    process = in_python(connecting, open_home, conninfo(parameters), **python_of(uid))
    assert "Permission denied" in process.communicate(timeout=60)[1]
    (place / "sockets").chmod(0o777)  # were the folder open, the server would still refuse
    Path(place / "sockets" / ".s.PGSQL.5432").chmod(0o777)
    process = in_python(connecting, open_home, conninfo(parameters), **python_of(uid))
    assert "Peer authentication failed" in process.communicate(timeout=60)[1]


def test_killed_server_starts_again_with_its_data(old_home: Path) -> None:
    with connect(embedded.start(old_home)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pid = postmaster(old_home)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid)
    assert not embedded.is_running(old_home)
    assert scalar(embedded.start(old_home), "SELECT answer FROM kept") == 42


def test_stale_process_id_of_an_unrelated_process_does_no_harm(old_home: Path) -> None:
    embedded.start(old_home)
    pid = postmaster(old_home)
    left = {
        path: path.read_text()
        for path in (data(old_home) / "postmaster.pid", data(old_home).parent / "sockets" / ".s.PGSQL.5432.lock")
    }
    embedded.stop(old_home)
    owner = data(old_home).stat()
    user: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if ROOT else {}
    with subprocess.Popen(["sleep", "60"], **user) as unrelated:
        for path, text in left.items():
            path.write_text(text.replace(str(pid), str(unrelated.pid), 1))
        assert not embedded.stop(old_home)
        assert not embedded.is_running(old_home)
        assert scalar(embedded.start(old_home), "SELECT 1") == 1
        assert unrelated.poll() is None
        unrelated.kill()


def test_killed_set_up_is_begun_anew(home: Path) -> None:
    process = in_python("embedded.start(home)", home)
    draft = home / "postgresql.new"
    while not (draft / "data" / "base").exists():
        assert process.poll() is None
        time.sleep(0.001)
    target = draft.resolve()
    process.kill()
    process.communicate()
    assert scalar(embedded.start(home), "SELECT 1") == 1
    assert not os.path.lexists(draft)
    assert not target.exists()


def test_long_home_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30) / "with, comma"
    home.mkdir(parents=True)
    tmp_path.chmod(0o711)
    try:
        parameters = embedded.start(home)
        assert len(str(parameters["host"])) < 90
        assert scalar(parameters, "SELECT 1") == 1
        embedded.stop(home)
        shutil.rmtree(str(parameters["host"]))  # as a cleaner of /tmp would
        assert scalar(embedded.start(home), "SELECT 1") == 1
    finally:
        clear(home)


def test_server_that_lost_its_socket_can_be_stopped(old_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_GRACE", 0.3)
    parameters = embedded.start(old_home)
    pid = postmaster(old_home)
    Path(str(parameters["host"]), ".s.PGSQL.5432").unlink()
    assert not embedded.is_running(old_home)
    assert embedded.stop(old_home)
    assert ended(pid)


def test_lost_data_is_an_error_that_says_what_to_delete(home: Path) -> None:
    embedded.start(home)
    place = embedded.folder(home)
    assert place is not None
    embedded.stop(home)
    shutil.rmtree(place / "data")
    with pytest.raises(errors.EmbeddedServerError, match=f"is gone.*delete {home}/postgresql to begin anew"):
        embedded.start(home)
    shutil.rmtree(place)
    if ROOT:
        with pytest.raises(errors.EmbeddedServerError, match="is gone"):
            embedded.start(home)
        (home / "postgresql").unlink()
    assert scalar(embedded.start(home), "SELECT 1") == 1


@only_root
def test_folder_that_somebody_else_put_in_place_is_refused(old_home: Path) -> None:
    place = embedded.folder(old_home)
    assert place is not None
    os.chown(place, other_user(), -1)
    try:
        for act in (embedded.start, embedded.is_running):
            with pytest.raises(errors.EmbeddedServerError, match="should belong to root"):
                act(old_home)
    finally:
        os.chown(place, 0, -1)


def test_home_that_all_can_reach_holds_everything(open_home: Path) -> None:
    assert embedded.start(open_home)["host"] == str(open_home / "postgresql" / "sockets")
    assert embedded.folder(open_home) == open_home / "postgresql"
    assert not (open_home / "postgresql").is_symlink()


@only_linux
def test_following_server_ends_with_its_parent_and_another_does_not(old_home: Path) -> None:
    before = len((old_home / "postgresql.log").read_text())
    for follow in (True, False):
        starting = in_python(f"print(embedded.start(home, follow_parent={follow})); input()", old_home, stdin=-1)
        assert starting.stdout is not None
        assert starting.stdout.readline()
        pid = postmaster(old_home)
        assert os.getsid(pid) != os.getsid(0)  # out of reach of the terminal's Ctrl-C
        starting.kill()
        starting.communicate()
        if follow:
            assert ended(pid)
            assert "received fast shutdown request" in (old_home / "postgresql.log").read_text()[before:]
    assert embedded.is_running(old_home)


def test_hostile_environment_does_not_disturb_the_parameters(shared_home: Path) -> None:
    hostile = {
        "PGHOST": "nowhere.invalid",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "mallory",
        "PGDATABASE": "none",
        "PGPASSFILE": "/dev/full",
        "PGOPTIONS": "-c search_path=evil",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "system",
        "PGSSLNEGOTIATION": "direct",
        "PGSSLCERTMODE": "require",
        "PGSSLMINPROTOCOLVERSION": "TLSv9",
        "PGMINPROTOCOLVERSION": "latest",
        "PGMAXPROTOCOLVERSION": "nonsense",
        "PGCHANNELBINDING": "require",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGREQUIREPEER": "mallory",
        "PGGSSENCMODE": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGLOADBALANCEHOSTS": "nonsense",
        "PGCONNECT_TIMEOUT": "nonsense",
        "PGCLIENTENCODING": "LATIN1",
    }
    asking = (
        "import psycopg, subprocess; from psycopg.conninfo import make_conninfo;"
        "parameters = embedded.start(home); query = 'SELECT current_database(), current_setting($$search_path$$)';"
        "print(psycopg.connect(**parameters).execute(query).fetchone());"
        "psql = [embedded.binary(home, 'psql'), '-XAt', '-d', make_conninfo(**parameters), '-c', query];"
        "print(subprocess.check_output(psql, text=True))"
    )
    answer = result(in_python(asking, shared_home, environment=hostile))
    assert answer.split("\n")[:2] == ["('searchapp', '\"$user\", public')", 'searchapp|"$user", public']


def test_programs_can_be_run_and_a_missing_one_is_named(shared_home: Path, tmp_path: Path) -> None:
    parameters = embedded.start(shared_home)
    dumped = subprocess.check_output([embedded.binary(shared_home, "pg_dump"), "-d", conninfo(parameters)], text=True)
    assert "PostgreSQL database dump complete" in dumped
    with pytest.raises(errors.EmbeddedServerError, match="no program 'psqll'"):
        embedded.binary(shared_home, "psqll")
    with pytest.raises(errors.EmbeddedServerError, match="first start"):
        embedded.binary(tmp_path, "psql")


def test_role_without_rights_can_be_made_and_used(shared_home: Path) -> None:
    parameters = embedded.start(shared_home)
    scalar(parameters, "SELECT 1")
    with connect(parameters) as connection:
        connection.execute("CREATE ROLE visitor LOGIN")
    with connect(parameters, user="visitor") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE TABLE forbidden ()")


def test_own_settings_win_and_altered_ones_win_over_them(old_home: Path) -> None:
    chosen = {"work_mem": "7MB", "log_line_prefix": "it's \\ %m", "fsync": "off"}
    parameters = embedded.start(old_home, settings=chosen)
    assert scalar(parameters, "SHOW work_mem") == "7MB"
    assert scalar(parameters, "SHOW log_line_prefix") == "it's \\ %m"
    with connect(parameters) as connection:
        connection.execute("ALTER SYSTEM SET work_mem = '9MB'")
    embedded.stop(old_home)
    with connect(embedded.start(old_home, settings=chosen)) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("9MB",)
        connection.execute("ALTER SYSTEM RESET ALL")


def test_server_that_does_not_start_says_why_in_one_line(old_home: Path) -> None:
    with pytest.raises(errors.EmbeddedServerError) as caught:
        embedded.start(old_home, settings={"shared_buffers": "many"})
    assert 'invalid value for parameter "shared_buffers": "many"' in str(caught.value)
    assert str(old_home / "postgresql.log") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert scalar(embedded.start(old_home), "SELECT 1") == 1


def test_data_of_another_version_is_refused(old_home: Path) -> None:
    file = data(old_home) / "PG_VERSION"
    ours = file.read_text()
    file.write_text("17\n")
    try:
        with pytest.raises(errors.EmbeddedServerError, match="made by PostgreSQL 17 and cannot be read by the inst"):
            embedded.start(old_home)
    finally:
        file.write_text(ours)


@pytest.mark.parametrize("name", ["dol$lar", 'quo"te', "line\nbreak"])
def test_home_with_a_name_that_initdb_breaks_is_refused(open_home: Path, name: str) -> None:
    with pytest.raises(errors.EmbeddedServerError, match="path without quotes"):
        embedded.start(open_home / name)
    assert {path.name for path in (open_home / name).iterdir()} == {"postgresql.lock"}


def test_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.EmbeddedServerError, match="Not a directory"):
        embedded.start(tmp_path / "file" / "home")
    assert not embedded.is_running(tmp_path / "absent")
    assert not embedded.stop(tmp_path / "absent")


def test_full_disk_is_an_error_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str, target: str, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(errors.EmbeddedServerError, match="No space left on device"):
        embedded.start(home)
    assert {path.name for path in home.iterdir()} == {"postgresql.lock"}


@only_root
def test_user_who_is_not_root_keeps_everything_at_home(open_home: Path) -> None:
    uid = other_user()
    options = python_of(uid)
    open_home.mkdir()
    os.chown(open_home, uid, 65534)
    whole = (
        "import os, psycopg; home = home / 'own'; parameters = embedded.start(home);"
        "print(psycopg.connect(**parameters).execute('SELECT 1').fetchone());"
        "home.chmod(0o500); print(embedded.start(home) == parameters); home.chmod(0o700);"  # read-only, and it runs
        "print([oct(p.stat().st_mode & 0o777) for p in (home, home / 'postgresql', home / 'postgresql' / 'sockets')]);"
        "print(embedded.stop(home)); home.chmod(0o500); embedded.start(home / 'below')"
    )
    output, complaints = in_python(whole, open_home, **options).communicate(timeout=60)
    assert output.splitlines() == ["(1,)", "True", "['0o700', '0o700', '0o700']", "True"], complaints
    assert "EmbeddedServerError" in complaints.splitlines()[-1]
    assert "Permission denied" in complaints.splitlines()[-1]


@only_root
def test_user_without_a_name_is_told_so(open_home: Path) -> None:
    options = python_of(other_user()) | {"user": 54321}
    open_home.mkdir()
    open_home.chmod(0o777)
    complaints = in_python("embedded.start(home / 'own')", open_home, **options).communicate(timeout=60)[1]
    assert "PostgreSQL needs a user's name and user id 54321 has none" in complaints
