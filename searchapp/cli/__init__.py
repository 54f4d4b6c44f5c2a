"""The command ``searchapp``: one line for an error, exit code 2, and no traceback unless ``--debug`` asks for it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
from itertools import pairwise


def main() -> None:
    """Run the command with the process's arguments, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the shell has closed it
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    arguments, debug = _take_debug(sys.argv[1:])
    logging.basicConfig(format="searchapp: %(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("searchapp").setLevel(logging.INFO)
    code = _run(arguments, debug)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or a full disk: _run has seen to that
            if stream is not None:
                stream.flush()
    os._exit(code)  # all is written; taking every module apart would take another fifth of a second


def _begin_loading(arguments: list[str]) -> None:
    """Load the default model of a search beside what else must be imported: each is half of its cold start."""
    by_words = "--mode=text" in arguments or ("--mode", "text") in pairwise(arguments)
    if arguments[:1] in (["search"], ["context"]) and "--help" not in arguments and not by_words:
        from searchapp import settings
        from searchapp.encoders import registry, weights

        registry.shared(settings.read().home).preload(weights.DEFAULT)


def _run(arguments: list[str], debug: bool) -> int:
    """Run the command; the exit code.

    Not by Typer's own ``main``, which ends quietly on Ctrl-C and takes a closed pipe for an error.
    """
    try:
        _begin_loading(arguments)
        import typer

        from searchapp.cli.app import app

        try:
            with typer.main.get_command(app).make_context("searchapp", arguments) as context:
                context.command.invoke(context)
        except typer.Exit as exc:  # --help, --version
            return exc.exit_code
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has had enough, as `head` has
        _discard_output()
        return 141
    except KeyboardInterrupt:
        return _complain("interrupted; what was committed stays", 130)
    except Exception as exc:
        if debug:
            traceback.print_exc()
        return _explain(exc)
    return 0


def _explain(exc: Exception) -> int:
    from searchapp import errors

    if isinstance(exc, errors.SearchAppError):
        return _complain(str(exc), 2)
    if hasattr(exc, "format_message"):  # wrong usage; the class itself is Typer's own affair
        message = exc.format_message()
        if not message.startswith("Usage:"):
            return _complain(f"{message.rstrip('.')} (see --help)", 2)
        print(message, file=sys.stderr)  # no command was given: this is the help
        return 2
    if isinstance(exc, OSError) and exc.filename is None:
        _discard_output()  # the disk that standard output goes to is full, or gone
    reason = (str(exc).strip().splitlines() or [""])[0]
    return _complain(f"unexpected {type(exc).__name__}: {reason} (--debug shows where)", 1)


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of the arguments, wherever it stands before a ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return kept + arguments[end:], len(kept) < end


def _complain(message: str, code: int) -> int:
    line = re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", " ".join(message.split()))  # a file's name may hold anything
    print(f"searchapp: error: {line}", file=sys.stderr)
    return code


def _discard_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
