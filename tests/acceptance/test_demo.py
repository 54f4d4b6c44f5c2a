"""The demo's corpus."""

from __future__ import annotations

import sys

from searchapp.cli import corpus


def test_the_corpus_is_the_docstrings_of_the_standard_library() -> None:
    documents = list(corpus.documents())
    by_key = {each.key: each for each in documents}
    assert len(by_key) == len(documents) > 5000
    assert all(each.text.strip() and each.title == each.key for each in documents)
    assert {each.metadata["kind"] for each in documents} == {"module", "class", "function", "method"}
    assert {each.metadata["module"].split(".")[0] for each in documents} <= sys.stdlib_module_names
    for key, kind, words in (
        ("subprocess", "module", "Subprocesses with accessible I/O streams"),
        ("subprocess.getoutput", "function", "Return output (stdout or stderr) of executing cmd in a shell."),
        ("pathlib.Path.read_text", "method", "Open the file in text mode"),
        ("argparse.ArgumentParser", "class", "parsing command line strings"),
        ("math.sqrt", "function", "Return the square root of x."),
    ):
        assert by_key[key].metadata["kind"] == kind
        assert words in by_key[key].text
