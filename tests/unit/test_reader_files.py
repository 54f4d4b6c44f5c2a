import gzip
import os
from pathlib import Path

import pytest

from searchapp import errors
from searchapp.ingest import readers
from searchapp.ingest.documents import DEFAULT_FIELDS, Document, Fields, Rejected
from searchapp.ingest.readers import files, hypertext, streams


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, fields: Fields = DEFAULT_FIELDS) -> list[Document | Rejected]:
    return list(readers.open_source(path, fields))


def test_a_folder_is_read_in_the_order_of_its_names_and_hidden_things_are_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/y.html", "c.markdown", "D.HTM", ".hidden.txt", ".git/x.md", "e.pdf", "f.jsonl"):
        write(tmp_path / name, f"text of {name}")
    source = readers.open_source(tmp_path)
    found = list(source)
    assert [row.key for row in found] == ["D.HTM", "a/y.html", "a/z.md", "b.txt", "c.markdown"]
    assert found[2] == Document("a/z.md", "text of a/z.md", None, {"path": "a/z.md", "format": "md"})
    assert source.position == source.total_bytes == sum(len(f"text of {key}") for key in (row.key for row in found))


def test_links_to_folders_are_not_followed_and_links_to_files_are(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.txt", "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a" / "a.txt")
    assert [row.key for row in read(tmp_path)] == ["a/a.txt", "link.txt"]
    (tmp_path / "whole").symlink_to(tmp_path / "a")
    assert [row.key for row in read(tmp_path / "whole")] == ["a.txt"]


def test_text_is_kept_byte_for_byte_but_for_the_byte_order_mark(tmp_path: Path) -> None:
    (document,) = read(write(tmp_path / "a.txt", b"\xef\xbb\xbf \xef\xbb\xbfone\r\ntwo\r\x0c\n\n"))
    assert document == Document("a.txt", " \ufeffone\r\ntwo\r\x0c\n\n", None, {"path": "a.txt", "format": "txt"})


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n# Two\n", "One"),
        ("intro\n\n#  Spaced out  ##  \r\n", "Spaced out"),
        ("## Second level\n#no heading\n # nor this\n", None),
        ("```\n# a comment\n```\n# C#\n", "C#"),
        ("~~~sh\n# a comment\n```\n# another\n", None),
        ("#\n# Named\n", "Named"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(tmp_path: Path, text: str, title: str | None) -> None:
    (document,) = read(write(tmp_path / "a.md", text))
    assert isinstance(document, Document)
    assert (document.title, document.text) == (title, text)


def test_html_becomes_its_title_and_its_visible_text(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title> Red &amp;
        blue </title><style>p { color: red }</style></head>
        <body><!-- a note --><h1>Red  <b>shoes</b> </h1><script>track()</script>
        <p>One<br>two <a href="x">th</a>ree <svg><title>s</title></svg></p><template><p>t</p></template>
        <ul><li>a</li>
        <li>b</ul><pre>
  def f():
      return 1
</pre><noscript>n</noscript><div hidden>h<p>i</p></div>
        <table><tr><th>1</th><td>2</td></tr><tr><td>3</td></tr></table>end</body></html>"""
    (document,) = read(write(tmp_path / "a.html", page))
    text = "Red shoes\nOne\ntwo three\na\nb\n  def f():\n      return 1\n1 2\n3\nend"
    assert document == Document("a.html", text, "Red & blue", {"path": "a.html", "format": "html"})


def test_html_nested_deeper_than_python_recurses_is_read() -> None:
    assert hypertext.read_html("<div>" * 5_000 + "x" + "</div>" * 5_000) == (None, "x")


def test_files_that_cannot_be_documents_are_rejected_with_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.txt", b"one\ntw\xc3\xb6 \xff")
    write(tmp_path / "b.html", b"a\0b")
    write(tmp_path / "c.html", b"<script>x</script>")
    (tmp_path / "d.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "e.txt")
    write(tmp_path / "f.txt.gz", gzip.compress(os.urandom(1_000))[:-20])
    write(tmp_path / "g.txt", "x" * 101)
    write(tmp_path / "h.html", "x" * 51)
    write(tmp_path / "i.txt", "fine")
    monkeypatch.setattr(streams, "MAX_BYTES", 100)
    monkeypatch.setattr(files, "MAX_PAGE_BYTES", 50)
    *faults, last = read(tmp_path)
    assert last.key == "i.txt"
    assert [(fault.place, fault.line, fault.key) for fault in faults if isinstance(fault, Rejected)] == [
        (name, None, name) for name in ("a.txt", "b.html", "c.html", "d.txt", "e.txt", "f.txt.gz", "g.txt", "h.html")
    ]
    assert [fault.reason for fault in faults if isinstance(fault, Rejected)] == [
        "not UTF-8 (byte 0xff at line 2, column 5)",
        "NUL in field 'text'",
        "empty text",
        "cannot be read: No such file or directory",
        "not a regular file",
        "cannot be read: its gzip ends too early; is the file whole?",
        "a file of more than 0 MB",
        "a file of more than 0 MB",
    ]


def test_a_file_whose_name_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    write(path, "x")
    assert read(tmp_path) == [Rejected(r"caf\xe9.txt", None, "its name is not UTF-8", None)]
    write(path.with_suffix(".jsonl"), "?\n")
    (fault,) = read(path.with_suffix(".jsonl"))
    assert isinstance(fault, Rejected)
    assert fault.place == r"caf\xe9.jsonl:1"


def test_a_folder_has_only_the_fields_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x")
    assert read(tmp_path, Fields(metadata=("format",))) == [Document("a.txt", "x", None, {"format": "txt"})]
    with pytest.raises(errors.InvalidInput, match="no row has a field 'body'; the fields are: key, title, text, path"):
        read(tmp_path, Fields(text=("body",)))


def test_a_folder_without_files_that_can_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.pdf", "x")
    with pytest.raises(
        errors.SourceUnreadable, match=r"has no files that can be read: \.txt, \.md, \.markdown, \.html"
    ):
        read(tmp_path)
