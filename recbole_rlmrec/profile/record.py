"""Profiles on disk: append-only JSON lines, one profile a line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A written profile.

    Attributes:
        token: original id of the user or item.
        profile: the text that is encoded.
        reasoning: why the writer says so; empty for a template.
        writer: who wrote it, such as ``template`` or ``llm:gpt-4o-mini``.
        prompt_sha256: hash of what the writer was given.
        train_sha256: hash of the training pairs that it was written from.
        told: other ends of the interactions that it was written from.
    """

    token: str
    profile: str
    reasoning: str
    writer: str
    prompt_sha256: str
    train_sha256: str
    told: tuple[str, ...] = ()
