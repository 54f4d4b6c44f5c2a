"""Where an ingest goes: to a collection that is there and was made alike, or else is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from searchapp import errors, spaces
from searchapp.encoders import Model, weights
from searchapp.encoders.registry import Registry
from searchapp.spaces import Chunking, Space

DEFAULT_LANGUAGE = "english"


@dataclass(frozen=True, slots=True)
class Destination:
    """A collection that documents are put into.

    :param language: what its words are read by; None: as it was made, or by the default.
    :param words: whether it has words at all; None: as it was made, or yes.
    :param find: looks its active space up; raises errors.CollectionMissing.
    :param create: makes it; raises errors.CollectionExists.
    :param check_language: raises errors.InvalidInput where the database does not know it.
    """

    collection: str
    registry: Registry
    language: str | None
    words: bool | None
    find: Callable[[], Space]
    create: Callable[[Model, Chunking], Space]
    check_language: Callable[[str], object]

    def check(self, model: str | None, chunk_tokens: int | None) -> None:
        """Check that documents may be encoded so, before the first is read.

        :param model: None: the collection's, or the default.
        :param chunk_tokens: None: as the collection's, or as many as the model reads.
        :raises errors.InvalidName, errors.InvalidInput: a name or a number of tokens that cannot be.
        :raises errors.CollectionMismatch: the collection was made with another model, or cuts otherwise.
        """
        space = self._checked()
        if space is None:
            if chunk_tokens is not None:
                chunking_for(chunk_tokens, self.registry.model(model or weights.DEFAULT))
            return
        name = weights.canonical_name(model or space.model)
        if name != space.model:  # told before the model is described: one from a folder is loaded for that
            raise _another_model(space)
        described = self.registry.model(name)
        check_revision(space, described)
        if chunk_tokens is not None and (wanted := spaces.chunking_of(chunk_tokens, described)) != space.chunking:
            raise errors.CollectionMismatch(
                f"the collection {self.collection} was made with {space.chunking}; {wanted} needs another collection"
            )

    def open(self, model: str | None, chunk_tokens: int | None) -> Space:
        """The space that the documents go to, made where it is absent; checked as :meth:`check` does."""
        if self._existing() is None:
            described = self.registry.model(model or weights.DEFAULT)
            with suppress(errors.CollectionExists):  # another process made it a moment ago
                return self.create(described, chunking_for(chunk_tokens, described))
        self.check(model, chunk_tokens)  # again: it may be another than before the first row
        return self.find()

    def dimensions_of(self, model: str) -> int | None:
        """The dimensions that embeddings of a model must have here; None where that is not known yet.

        :raises errors.InvalidName: a name that cannot be.
        :raises errors.CollectionMismatch: the collection was made with another model.
        """
        self._checked()
        described = self._made_with(model) or self.registry.known(model)
        return None if described is None else described.dimensions

    def open_for(self, model: str, dimensions: int | None) -> Space:
        """The space that embeddings of a model go to, made where it is absent; the model need not be here.

        :param dimensions: theirs.
        """
        name = weights.canonical_name(model)
        described = self.registry.known(model) or Model(
            name, weights.EXTERNAL, revision="", dimensions=dimensions or 0, max_tokens=0
        )
        return self._made_with(model) or self.create(described, Chunking(0))

    def _checked(self) -> Space | None:
        """The collection as it is; its name could be one, and its words are as they are asked for."""
        spaces.check_name(self.collection)
        asked = language_for(self.language, self.words)
        space = self._existing()
        if space is None:
            if asked is not None:
                self.check_language(asked)
        elif self.words is False and space.language is not None:
            raise errors.CollectionMismatch(
                f"the collection {self.collection} has words ({space.language}); what is to have none needs another"
            )
        elif self.language is not None and space.language is None:
            raise errors.CollectionMismatch(
                f"the collection {self.collection} was made without words; make them:"
                f" searchapp index words --collection {self.collection} --language {self.language}"
            )
        elif self.language is not None and self.language.lower() != (space.language or "").lower():
            raise spaces.read_otherwise(space, self.language)
        return space

    def _existing(self) -> Space | None:
        try:
            return self.find()
        except errors.CollectionMissing:
            return None

    def _made_with(self, model: str) -> Space | None:
        space = self._existing()
        if space is not None and space.model != weights.canonical_name(model):
            raise _another_model(space)
        return space


def language_for(language: str | None, words: bool | None) -> str | None:
    """What the words of a new collection are read by, None where it has none.

    :raises errors.InvalidInput: a language was given, and no words wanted.
    """
    if words is False:
        if language is not None:
            raise errors.InvalidInput(f"without words there is nothing to read as {language}; leave one of both out")
        return None
    return language or DEFAULT_LANGUAGE


def chunking_for(chunk_tokens: int | None, model: Model) -> Chunking:
    """The chunking that is asked for, or the model's own.

    :raises errors.InvalidInput: the model cannot read so many tokens.
    """
    return spaces.default_chunking(model) if chunk_tokens is None else spaces.chunking_of(chunk_tokens, model)


def check_revision(space: Space, model: Model) -> None:
    """Check that a model is the one that a space was made with; of one that was only named, its weights are unknown.

    :raises errors.CollectionMismatch: it is another.
    """
    if model.dimensions != space.dimensions:
        theirs = f"the collection {space.collection} has {space.dimensions}"
        raise errors.CollectionMismatch(f"{model.name} gives {model.dimensions} dimensions; {theirs}")
    if space.revision and model.revision != space.revision:
        raise errors.CollectionMismatch(
            f"the collection {space.collection} was made with other weights of {space.model} "
            f"({space.revision[:12]}, here {model.revision[:12]}); use those, or another collection"
        )


def _another_model(space: Space) -> errors.CollectionMismatch:
    return errors.CollectionMismatch(
        f"the collection {space.collection} was made with {space.model}; ingest with that, or into another collection"
    )
