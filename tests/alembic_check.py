"""``alembic upgrade head`` and ``alembic check``, as a user types them, on a server of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from searchapp import database
from tests.servers import temporary_server


def main() -> int:
    with temporary_server() as server:
        environment = {**os.environ, "DATABASE_URL": database.conninfo(server)}
        for command in ("upgrade head", "check"):
            done = subprocess.run([sys.executable, "-m", "alembic", *command.split()], env=environment, check=False)
            if done.returncode:
                break
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
