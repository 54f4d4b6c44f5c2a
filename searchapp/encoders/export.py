"""Exporting a sentence-transformers model as an ONNX graph, from token ids to what it gives. Imports torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx_ir
import torch
from onnx_ir.passes.common import ShapeInferencePass
from onnxscript import optimizer
from onnxscript.rewriter.ort_fusions import attention, bias_gelu, erfgelu, mha, mha_bias, sdpa
from sentence_transformers import CrossEncoder, SentenceTransformer

OPSET = 18
# The library's names of what a model gives.
EMBEDDING = "sentence_embedding"
SCORES = "scores"
# What is known beforehand may be put together once, however large it is (bytes).
_ANY_SIZE = 1 << 40


class _Graph(torch.nn.Module):
    """From token ids to what the model gives: embeddings of unit length, or logits of shape (pairs, 1).

    The order of the arguments is that of ``names``.
    """

    def __init__(self, transformer: SentenceTransformer | CrossEncoder, names: list[str], output: str) -> None:
        super().__init__()
        self.transformer = transformer
        self.names = names
        self.output = output

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        features = self.transformer(dict(zip(self.names, tokens, strict=True)))
        given: torch.Tensor = features[self.output]
        return given if self.output == SCORES else torch.nn.functional.normalize(given, p=2, dim=1)


def write_graph(transformer: SentenceTransformer | CrossEncoder, path: Path, *, fused: bool) -> None:
    """Write the graph of a model: it takes int64 tensors of shape (texts, tokens), any number of both.

    Its weights go into a file beside it, named as the graph and ``.data``.

    :param transformer: the model, whose attention can be traced (``eager``).
    :param fused: replace what ONNX Runtime has one node for; it says nothing of how well that went.
    :raises Exception: whatever the exporter stumbles over.
    """
    output = SCORES if isinstance(transformer, CrossEncoder) else EMBEDDING
    names = list(transformer.tokenizer.model_input_names)
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    shape = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=transformer.max_seq_length)}
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            _Graph(transformer, names, output).eval(),
            tuple(given[name] for name in names),
            input_names=names,
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=((shape,) * len(names),),
            verbose=False,
        )
        assert program is not None  # the dynamo exporter always makes one
        if fused:
            _fuse(program.model)
        program.save(str(path), external_data=True)


def _fuse(model: onnx_ir.Model) -> None:
    """Make one node of each layer's attention, projections included, and of each GELU and the bias before it.

    A short text's time goes into the number of nodes. ``optimize_for_ort`` would also fuse the layers' normalisation,
    which ONNX Runtime then does more slowly.
    """
    ShapeInferencePass()(model)
    optimizer.optimize(model)
    erfgelu.fuse_erfgelu(model)
    sdpa.fuse_sdpa(model, apply_shape_inference=True)
    mha.fuse_mha1(model)
    mha.fuse_mha2(model)
    mha_bias.fuse_mha_bias(model)
    attention.fuse_attention(model)
    bias_gelu.fuse_bias_gelu(model)
    optimizer.optimize(model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)


@contextlib.contextmanager
def _quietly():  # type: ignore[no-untyped-def]  # a context manager
    """Without the exporter's remarks on packages that are not there."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
