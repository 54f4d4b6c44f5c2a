"""Declared fields of metadata."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """A field of metadata and what it holds: ``type`` is number, text or date."""

    name: str
    type: str
