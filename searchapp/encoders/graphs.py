"""The cache of exported graphs: each made once, checked before use, and made anew where it is damaged."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from tokenizers import Tokenizer

from searchapp import errors
from searchapp.encoders import CrossEncoder, Encoder, Model
from searchapp.encoders.onnx import OnnxCrossEncoder, OnnxEncoder

if TYPE_CHECKING:
    from searchapp.encoders.sentence_transformer import SentenceTransformerCrossEncoder, SentenceTransformerEncoder

logger = logging.getLogger("searchapp")

# Raised whenever the export changes: graphs of another version are made anew.
VERSION = 3
# How near the graph must come to the original before it is used.
MINIMUM_COSINE = 0.99999
# Of logits, which models that are trained to rank spread over several units.
MAXIMUM_DIFFERENCE = 1e-3
SAMPLE = (
    "a",
    "Red running shoes, size 42",
    "What is the airspeed velocity of an unladen swallow?",
    "Na\u00efve caf\u00e9 \u2013 \u6771\u4eac \u2013 \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f600",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "So long a text that it is cut where the window of the model ends. " * 200,
)


class Original(Protocol):
    """A model as the library runs it, which can write its graph."""

    @property
    def model(self) -> Model: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def write_graph(self, path: Path, *, fused: bool) -> None: ...


S = TypeVar("S", bound=Original)
G = TypeVar("G")


@dataclass(frozen=True, slots=True)
class Kind(Generic[S, G]):
    """What the graphs of a cache are of.

    :param open: a graph with its tokenizer's file, loaded.
    :param probe: runs the original on next to nothing, which fails where its weights are damaged.
    :param check: checks that a graph gives what the original gives.
    """

    open: Callable[[Model, Path, Path], G]
    probe: Callable[[S], object]
    check: Callable[[S, G], None]


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one graph. ``description`` is written last: a graph without one does not exist.

    ``weights`` are apart from the graph, which then loads three times as fast: ONNX Runtime maps them into memory.
    """

    weights: Path
    graph: Path
    tokenizer: Path
    description: Path

    def checksums(self) -> list[int]:
        return [_checksum(self.weights), _checksum(self.graph), _checksum(self.tokenizer)]

    def describe(self, model: Model) -> None:
        """Write the description of a graph that was verified, with the checksums of its files and its own."""
        description = {"model": dataclasses.asdict(model), "checksums": [*self.checksums(), _checksum_of(model)]}
        self.description.write_text(json.dumps(description), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Cache(Generic[S, G]):
    """The folder of graphs, each named after its model, the SHA-256 of the weights and the exporter's version."""

    folder: Path
    kind: Kind[S, G]

    def find(self, name: str, revision: str) -> G | None:
        """The encoder of a model whose graph is here, whole and as it was verified; None where it is not."""
        files = self._files(name, revision)
        found = self._open(files)
        if found is None and _read(files.description) is not None:
            logger.warning("the exported graph of %s is damaged; making it anew", name)
        return found

    def describe(self, name: str, revision: str) -> Model | None:
        """What a model is whose graph is here, without loading it."""
        description = _read(self._files(name, revision).description)
        return None if description is None else description[0]

    def make(self, original: S) -> S | G:
        """Export a model's graph, or take it where another process has just done so.

        :return: the graph's encoder; or the original, with a warning, where a graph cannot be made or kept, or differs.
        :raises errors.ModelCorrupted: the original gives NaN or infinity.
        """
        model = original.model
        self.kind.probe(original)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / "lock"):
                made = self._open(self._files(model.name, model.revision))  # by another process
                return made or self._export(original)
        except OSError as exc:
            reason = f"its ONNX graph cannot be kept in {self.folder} ({exc.strerror})"
        except Exception as exc:  # whatever the exporter stumbles over: the original works, more slowly
            said = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
            reason = f"it cannot be exported to ONNX ({said})"
            logger.debug("the export failed", exc_info=True)
        logger.warning("encoding %s more slowly: %s", model.name, reason)
        return original

    def _open(self, files: _Files) -> G | None:
        """The encoder; None where the files are not, or not as they were described."""
        description = _read(files.description)
        with suppress(OSError):
            if description is not None and description[1] == files.checksums():
                return self.kind.open(description[0], files.graph, files.tokenizer)
        return None

    def _export(self, original: S) -> G:
        model = original.model
        logger.info("exporting %s to ONNX, once; it makes encoding faster", model.name)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="draft-") as folder:
            draft = Cache(Path(folder), self.kind)._files(model.name, model.revision)
            self._write(original, draft)
            draft.describe(model)
            files = self._files(model.name, model.revision)
            for made, kept in zip(dataclasses.astuple(draft), dataclasses.astuple(files), strict=True):
                made.replace(kept)
        return self.kind.open(model, files.graph, files.tokenizer)

    def _write(self, original: S, files: _Files) -> None:
        """Write a graph that gives what the original gives: fused, or as it was exported where that does not."""
        original.tokenizer.save(str(files.tokenizer))
        for fused in (True, False):
            try:
                original.write_graph(files.graph, fused=fused)
                self.kind.check(original, self.kind.open(original.model, files.graph, files.tokenizer))
                return
            except Exception:  # whatever the rewriter stumbles over
                if not fused:
                    raise
                logger.debug("the fused graph cannot be used", exc_info=True)
                files.weights.unlink(missing_ok=True)  # a session may still have it in its memory

    def _files(self, name: str, revision: str) -> _Files:
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", Path(name).name)
        stem = f"{slug}-{revision[:16]}-v{VERSION}"
        suffixes = ("onnx.data", "onnx", "tokenizer.json", "json")
        return _Files(*(self.folder / f"{stem}.{suffix}" for suffix in suffixes))


def check_against(original: Encoder, graph: Encoder) -> None:
    """Check that a graph's embeddings of the sample are the original's.

    :raises errors.ModelCorrupted: the cosine of one of them is below 0.99999.
    """
    cosines = np.sum(original.encode_documents(SAMPLE) * graph.encode_documents(SAMPLE), axis=1)
    if not cosines.min() >= MINIMUM_COSINE:  # so that NaN fails
        raise errors.ModelCorrupted(f"its graph gives other embeddings (cosine {cosines.min():.6f} to the original)")


def check_scores(original: CrossEncoder, graph: CrossEncoder) -> None:
    """Check that a graph's scores of the sample are the original's, for a short query and for a longer one.

    :raises errors.ModelCorrupted: one of them is over 0.001 away.
    """
    for query in SAMPLE[2], SAMPLE[4]:
        difference = np.abs(original.scores(query, SAMPLE) - graph.scores(query, SAMPLE)).max()
        if not difference <= MAXIMUM_DIFFERENCE:  # so that NaN fails
            raise errors.ModelCorrupted(f"its graph gives other scores (by up to {difference:.6f})")


EMBEDDINGS: Kind[SentenceTransformerEncoder, OnnxEncoder] = Kind(
    OnnxEncoder, lambda original: original.encode_documents(SAMPLE[:1]), check_against
)
SCORES: Kind[SentenceTransformerCrossEncoder, OnnxCrossEncoder] = Kind(
    OnnxCrossEncoder, lambda original: original.scores(SAMPLE[0], SAMPLE[:1]), check_scores
)


def _read(description: Path) -> tuple[Model, list[int]] | None:
    """The model that a description is of, and the checksums of its files; None where it is absent or damaged."""
    try:
        read = json.loads(description.read_text(encoding="utf-8"))
        model, (*files, own) = Model(**read["model"]), read["checksums"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (model, files) if own == _checksum_of(model) else None


def _checksum(path: Path) -> int:
    """CRC-32 of a file: against damage, not against ill will; SHA-256 of 90 MB would take a fifth of a second."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _checksum_of(model: Model) -> int:
    return zlib.crc32(json.dumps(dataclasses.asdict(model)).encode())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
