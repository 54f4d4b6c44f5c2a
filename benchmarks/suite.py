"""All benchmarks in their order, and what becomes of their figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    asking,
    corpus,
    curves,
    encoding,
    environment,
    exact,
    filtering,
    from_sql,
    limits,
    loading,
    machine,
    processes,
    querying,
    report,
    sources,
    words,
)
from benchmarks.bench import FULL, MODEL, QUICK, Bench, Benchmark
from benchmarks.goals import Goal, failed, judge
from benchmarks.progress import Progress
from searchapp.encoders.registry import Registry

BENCHMARKS = (
    *encoding.BENCHMARKS,
    processes.COLD,
    *loading.BENCHMARKS,
    *querying.BENCHMARKS,
    *exact.BENCHMARKS,
    *limits.BENCHMARKS,
    processes.MEMORY,
    *curves.BENCHMARKS,
    *words.BENCHMARKS,
    *asking.BENCHMARKS,
    *from_sql.BENCHMARKS,
    *sources.BENCHMARKS,
    # last: the collections that it makes are beside no other benchmark's
    *filtering.BENCHMARKS,
    asking.FACETS_OF_HALF,
)


def run(*, quick: bool, only: str | None, threads: int, corpus_path: Path | None, vectors_path: Path | None) -> int:
    """Measure, write the files unless ``only`` one benchmark was asked for, and print the table of goals.

    :return: the exit status: 1 where something could not be measured.
    :raises corpus.CorpusUnusable: there is nothing to measure on.
    """
    chosen = choose(only)
    progress = Progress()
    sizes = QUICK if quick else FULL
    with environment.temporary_home() as home:
        registry = Registry(home)
        progress.say("reading the corpus")
        drawn = corpus.read(
            corpus_path,
            vectors_path,
            sizes.rows,
            lambda texts: registry.encoder(MODEL).encode_documents(texts),
            progress.say,
        )
        progress.say("starting a server")
        with environment.temporary_server(home) as url:
            bench = Bench(drawn, url, home, registry, sizes=sizes, threads=threads, say=progress.say)
            record = describe(bench, quick)
            goals, details = measure(bench, chosen, progress)
            bench.close()
    record |= {"goals": [dataclasses.asdict(goal) for goal in goals], "details": details}
    if only is None:
        report.write(record, environment.BUILD / "bench.json", environment.BUILD if quick else environment.DOCS)
    else:
        print(report.as_json(details))
    if goals:
        print(report.goals_table(record["goals"]))
    return int(any(goal.measured is None for goal in goals))


def choose(only: str | None) -> Sequence[Benchmark]:
    """All benchmarks, or the one of that name."""
    chosen = [each for each in BENCHMARKS if only in (None, each.name)]
    if not chosen:
        raise SystemExit(f"bench: no benchmark {only!r}; there are: {', '.join(each.name for each in BENCHMARKS)}")
    return chosen


def describe(bench: Bench, quick: bool) -> dict[str, Any]:
    """What the figures depend on: the machine, the versions, the settings."""
    bench.say("measuring the machine")
    return {
        "machine": machine.describe(bench.threads),
        "versions": machine.versions(bench.url),
        "settings": {
            "quick": quick,
            "corpus": bench.corpus.name,
            "documents": bench.rows,
            "rounds": bench.sizes.rounds,
            "rounds of what takes long": bench.sizes.long_rounds,
            "threads": bench.threads,
            "server": machine.server_settings(bench.url),
        },
    }


def measure(bench: Bench, chosen: Sequence[Benchmark], progress: Progress) -> tuple[list[Goal], dict[str, Any]]:
    """Run benchmarks; one that fails leaves its goals unmet, with the reason, and the others go on."""
    goals: list[Goal] = []
    details: dict[str, Any] = {}
    for each in chosen:
        progress.doing = each.name
        try:
            result = each.run(bench)
            goals += [judge(target, result) for target in each.targets]
            details[each.name] = {"about": each.about, **result.details}
        except Exception as exc:  # whatever it stumbles over: an unmet goal is an answer, too
            reason = without_paths(f"{type(exc).__name__}: {exc}", bench.home)
            progress.say(reason)
            goals += [failed(target, reason) for target in each.targets]
            details[each.name] = {"about": each.about, "failed": reason}
    progress.doing = ""
    return goals, details


def without_paths(words: str, home: Path) -> str:
    """The first line of a message, without the folders of this machine."""
    line = words.strip().splitlines()[0]
    for folder, name in ((home, "<home>"), (environment.ROOT, "."), (Path.home(), "~")):
        line = line.replace(str(folder), name)
    return line
