"""Models of a few random weights, made where a test needs one."""

from __future__ import annotations

from pathlib import Path

from searchapp.encoders import weights

WORDS = "a the red blue running shoes hat cat dog sat on mat what is for sneakers crimson word quick brown fox ##s"


def save_cross_encoder(folder: Path, *, labels: int = 1, max_tokens: int = 64) -> str:
    """Save a cross-encoder of two layers, 32 wide, whose scores differ by about a unit; the folder's path."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    characters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    vocabulary += [f"##{each}" for each in characters] + WORDS.split()
    parts = folder.with_name(f"{folder.name}-parts")
    parts.mkdir()
    (parts / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(parts / "vocab.txt"), model_max_length=max_tokens)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_tokens,
        initializer_range=0.5,
    )
    config.num_labels = labels
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = BertForSequenceClassification(config)
    model.save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    CrossEncoder(str(parts), local_files_only=True).save_pretrained(str(folder), create_model_card=False)
    return str(folder)


def save_encoder(folder: Path, *, query_prompt: str = "") -> str:
    """Save a model of one layer and 32 dimensions with the tokenizer of the real one; the folder's path.

    :param query_prompt: what it wants before a query.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(weights.locate(weights.DEFAULT))
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    parts = folder.with_name(f"{folder.name}-parts")
    BertModel(config).save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    modules = [Transformer(str(parts), max_seq_length=64), Pooling(32), Normalize()]
    prompts = {"query": query_prompt} if query_prompt else None
    SentenceTransformer(modules=modules, prompts=prompts).save_pretrained(str(folder), create_model_card=False)
    return str(folder)
