"""``python -m benchmarks``: measure, write ``build/bench.json`` and the page of figures, print the table of goals."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import environment


def main() -> int:
    """Run the command.

    :return: the exit status: 0 where all was measured, met or not; 1 where something could not be; 130 after Ctrl-C.
    """
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server's folder is deleted then, too
    threads = environment.prepare()
    from benchmarks import corpus, suite  # these import numpy, which reads its number of threads once

    try:
        return suite.run(
            quick=arguments.quick,
            only=arguments.only,
            threads=threads,
            corpus_path=arguments.corpus,
            vectors_path=arguments.vectors,
        )
    except corpus.CorpusUnusable as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the texts, fewer rounds: six minutes")
    parser.add_argument(
        "--corpus", type=Path, metavar="FILE", help="JSONL of key, title and text, perhaps packed (.gz)"
    )
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="its embeddings (.npy), row i of line i")
    parser.add_argument("--only", metavar="NAME", help="one benchmark, such as query; prints, and writes no file")
    arguments = parser.parse_args()
    if arguments.vectors and not arguments.corpus:
        parser.error("--vectors needs --corpus")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
