"""Encoding: against sentence-transformers with the same weights, and against what the machine can multiply."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import corpus, machine, timing
from benchmarks.bench import MODEL, Bench, benchmark
from benchmarks.goals import Result
from searchapp.encoders import weights
from searchapp.vectors import Array

# An abstract of this benchmark has more tokens.
LONG = 200
# So many lines are encoded first, so that nothing is done for the first time while it is measured.
WARM_UP = 200
# Queries a round, where there are as many that were not asked before.
QUERIES = 100
ASKED_AGAIN = 1000


def encode_lines(bench: Bench) -> Result:
    """Many short texts, as ``encode`` is called by default; and how near that is to the machine's sgemm."""
    texts = distinct(bench.corpus.lines)[: bench.sizes.lines]
    rounds, cosine = encode_in_turns(bench, texts, sgemm=True)
    lengths = token_counts(bench, texts)
    work = flops(lengths, read_config()) / 1e9
    shares = [
        work / took / machine.sgemm_rate(product)
        for took, product in zip(rounds.figures["searchapp"], rounds.figures["sgemm"], strict=True)
    ]
    return Result(
        {
            "encode lines: times sentence-transformers": rounds.ratio("sentence-transformers", "searchapp"),
            "encode lines: cosine": cosine,
            "encode against the machine": statistics.median(shares),
        },
        {
            "texts": len(texts),
            "tokens a text, mean": float(np.mean(lengths)),
            "GFLOP of the real tokens": work,
            "searchapp, GFLOP/s": work / rounds.median("searchapp"),
            "searchapp, texts/s": len(texts) / rounds.median("searchapp"),
            f"numpy's sgemm at {machine.SIZE} x {machine.SIZE}, GFLOP/s": machine.sgemm_rate(rounds.median("sgemm")),
            **rounds.details("s"),
        },
    )


def encode_abstracts(bench: Bench) -> Result:
    """Long texts: SciFact's abstracts, with their titles, of over 200 tokens."""
    everything = corpus.read_abstracts()
    lengths = token_counts(bench, everything)
    texts = [text for text, length in zip(everything, lengths, strict=True) if length > LONG][: bench.sizes.abstracts]
    rounds, cosine = encode_in_turns(bench, texts)
    return Result(
        {"encode abstracts": rounds.ratio("sentence-transformers", "searchapp")},
        {
            "texts": len(texts),
            "tokens a text, mean": float(np.mean(token_counts(bench, texts))),
            "cosine, minimum": cosine,
            "searchapp, texts/s": len(texts) / rounds.median("searchapp"),
            **rounds.details("s"),
        },
    )


def encode_query(bench: Bench) -> Result:
    """One query at a time: new ones, and one that was asked before."""
    batches = new_queries(bench)
    waiting = {"searchapp": iter(batches), "sentence-transformers": iter(batches)}

    def ours() -> float:
        return timing.p50(lambda query: bench.registry.encode_query(MODEL, query), next(waiting["searchapp"]))

    def theirs() -> float:
        return timing.p50(bench.transformer.encode, next(waiting["sentence-transformers"]))

    sides = {"searchapp": ours, "sentence-transformers": theirs}
    timing.warm_up(sides, bench.say)
    rounds = timing.take_turns(sides, bench.sizes.rounds, bench.say)
    known = batches[-1][0]
    cached = timing.p50(lambda query: bench.registry.encode_query(MODEL, query), [known] * ASKED_AGAIN)
    return Result(
        {
            "encode one query: against sentence-transformers": rounds.ratio("searchapp", "sentence-transformers"),
            "encode one query: cached, us": cached * 1e6,
        },
        {"queries a round": len(batches[0]), **rounds.details("ms, p50", 1e3)},
    )


def new_queries(bench: Bench) -> list[list[str]]:
    """The held-out lines in one batch for each round, the warm-up counted in: the cache has seen none of them."""
    count = bench.sizes.rounds + 1
    queries = distinct(bench.corpus.queries)
    size = min(QUERIES, len(queries) // count)
    return [queries[number * size : (number + 1) * size] for number in range(count)]


def encode_in_turns(bench: Bench, texts: list[str], *, sgemm: bool = False) -> tuple[timing.Rounds, float]:
    """Encode the same texts on both sides, in turns.

    :param sgemm: measure the machine's in each round, too.
    :return: seconds, and the least cosine between the two sides' embeddings.
    """
    found: dict[str, Array] = {}

    def ours() -> None:
        found["searchapp"] = bench.encoder.encode_documents(texts)

    def theirs() -> None:
        found["sentence-transformers"] = bench.transformer.encode(texts)

    sides = {"searchapp": timing.timed(ours), "sentence-transformers": timing.timed(theirs)}
    if sgemm:
        sides["sgemm"] = machine.sgemm
    bench.say("warm-up")
    bench.encoder.encode_documents(texts[:WARM_UP])
    bench.transformer.encode(texts[:WARM_UP])
    rounds = timing.take_turns(sides, bench.sizes.long_rounds, bench.say)
    return rounds, least_cosine(found["searchapp"], found["sentence-transformers"])


def least_cosine(one: Array, other: Array) -> float:
    """The least cosine between embeddings of the same texts, in double precision.

    >>> least_cosine(np.float32([[1, 0], [0, 2]]), np.float32([[3, 0], [0, 1]]))
    1.0
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    cosines = np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(cosines.min())


def token_counts(bench: Bench, texts: Sequence[str]) -> list[int]:
    """The tokens that the model reads of each text: special ones counted in, what is cut off not."""
    encodings = bench.encoder.tokenizer.encode_batch_fast(list(texts))
    return [min(len(encoding), bench.encoder.max_tokens) for encoding in encodings]


def flops(lengths: Sequence[int], config: dict[str, Any]) -> float:
    """The floating-point operations of a BERT on texts of these tokens: the products of matrices, attention's too.

    A multiplication and an addition are two. Per token and layer: four projections of h x h, two of h x i, and against
    each token of its text 4h for the attention's scores and sums.

    >>> config = {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536}
    >>> flops([1], config), flops([10, 10], config)
    (21242880.0, 426516480.0)
    """
    layers, h, i = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
    tokens = np.asarray(lengths, dtype=np.float64)
    return float(np.sum(tokens * layers * (2 * (4 * h * h + 2 * h * i) + 4 * h * tokens)))


def read_config() -> dict[str, Any]:
    """The configuration of the model."""
    path: Path = weights.locate(MODEL) / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def distinct(texts: Sequence[str]) -> list[str]:
    """Each text once: an encoder may encode equal ones together."""
    return list(dict.fromkeys(texts))


BENCHMARKS = (
    benchmark(
        "encode lines",
        encode_lines,
        {
            "encode lines: times sentence-transformers": (">= 1.5", "x"),
            "encode lines: cosine": (">= 0.99999", ""),
            "encode against the machine": (">= 0.85", "x"),
        },
    ),
    benchmark("encode abstracts", encode_abstracts, {"encode abstracts": (">= 1.25", "x")}),
    benchmark(
        "encode one query",
        encode_query,
        {
            "encode one query: against sentence-transformers": ("<= 0.3", "x"),
            "encode one query: cached, us": ("<= 50", "us"),
        },
    ),
)
