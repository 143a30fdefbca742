"""What an encoder is, and how one is made by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from recbole_rlmrec.errors import ContractError, ServiceError, SettingError
from recbole_rlmrec.openai_client import shown_address
from recbole_rlmrec.parts import Registry, checked_class, failures_named

#: Settings of :class:`EncoderSettings` that change no vector: where and how fast they are made.
_OF_ONE_RUN = ("device", "batch_size", "concurrency", "timeout", "max_retries")


@dataclass(frozen=True)
class EncoderSettings:
    """How to encode. What an encoder cannot use is refused, not ignored.

    Attributes:
        model: the model's name; for sentence-transformers also a local folder; not for ``lsa``.
        device: where a sentence-transformers model runs, such as ``cpu`` or ``cuda:0``; None leaves it to the library.
        batch_size: texts in a model's batch, or in a request; not for ``lsa``.
        prompt: instruction put before each text, for models that are trained with one; not for ``lsa``.
        dimension: length of a vector: components of ``lsa`` (256 if None), or the ``dimensions`` asked of ``openai``.
        base_url: address of an OpenAI-compatible server; None is OpenAI's own, or ``OPENAI_BASE_URL``.
        key_variable: environment variable that holds the server's key.
        seed: of ``lsa``'s random projections.
        concurrency: requests under way at the same time.
        timeout: seconds within which a whole answer has to come.
        max_retries: times a request is tried again when the server is busy or cannot be reached.
    """

    model: str | None = None
    device: str | None = None
    batch_size: int = 64
    prompt: str = ""
    dimension: int | None = None
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    seed: int = 2023
    concurrency: int = 4
    timeout: float = 120.0
    max_retries: int = 5

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "dimension"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}, expected at least 1.")


class Encoder(ABC):
    """Turns texts into vectors.

    Args:
        settings: of the class ``settings_class``.

    Attributes:
        known_as: the name by which ``--encoder`` asks for it.
        settings_class: a subclass of :class:`~recbole_rlmrec.settings.Settings`, whose fields the user gives as
            ``--name=value``; or :class:`EncoderSettings`, whose fields have options of ``build-semantics``.
        name: what made the vectors, for ``.semantic.json``. It names everything that changes them, and nothing of this
            machine: tables of the same name lie in the same space.
        block_size: texts that are best given to ``encode`` at a time. What was encoded is on disk after each block.
        learns_from_texts: whether a text's vector depends on all texts, which ``fit`` has to see first. Only then is
            ``fit`` called, and only otherwise are vectors of unchanged texts taken over from an earlier run.
        train_sha256: hash of the training split whose interactions the encoder was tuned on; empty where it was tuned
            on none. It is recorded with the vectors: a training on another split is then refused.
        asks_server: whether texts go to a server, which may be paid for: none is then encoded before it is needed.
    """

    known_as: ClassVar[str]
    settings_class: ClassVar[type] = EncoderSettings
    name: str
    block_size: int = 1024
    learns_from_texts: bool = False
    asks_server: bool = False
    train_sha256: str = ""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def fit(self, texts: Sequence[str]) -> None:  # noqa: B027 - most encoders learn nothing
        """Learn from all texts of users and items, before any is encoded."""

    def learned(self) -> Mapping[str, np.ndarray]:
        """Return what ``fit`` learned, by name, for :meth:`restore`; numbers only, no objects.

        It is kept beside the embeddings, so that later texts can be encoded. By default nothing is, and an encoder that
        learns from texts has to be fitted again.
        """
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take what :meth:`learned` returned, in the place of ``fit``: vectors are then the same.

        Raises:
            ValueError: the arrays are others; the message is a clause, such as "it does not hold words".
        """
        raise ValueError("this encoder keeps nothing of what it learns")

    def recorded_settings(self) -> Mapping[str, Any]:
        """Return the settings by which the encoder can be made again, for ``.semantic.json``.

        They hold no key and nothing that matters on this machine only; those with their defaults are left out.
        """
        given: Any = getattr(self, "settings", None)  # which an encoder from outside need not keep
        found = {
            field.name: getattr(given, field.name)
            for field in (fields(given) if is_dataclass(given) else ())
            if field.name not in _OF_ONE_RUN and getattr(given, field.name) != field.default
        }
        return {name: shown_address(value) if name == "base_url" else value for name, value in found.items()}

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of some texts, float32 ``[n, D]``, with ``D`` the same at every call.

        Raises:
            TextRefusedError: a text cannot be encoded.
            ServiceError: a server refuses, or cannot be reached.
            SettingError: the model cannot be loaded.
        """

    def answered(self) -> Mapping[int, np.ndarray]:
        """Return what the last ``encode`` had when it failed: position -> vector, float32 ``[D]``; empty by default.

        An encoder whose vectors are paid for returns them, so that they are not paid for again.
        """
        return {}

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know of the texts encoded so far, one sentence each."""
        return ()


def unit_rows(vectors: np.ndarray, are_unit: np.ndarray | None = None) -> np.ndarray:
    """Scale vectors to length 1, float32 ``[n, D]``; those of zeros stay.

    Args:
        vectors: float32 ``[n, D]``.
        are_unit: which of them have that length already, bool ``[n]``: another division would round them once more.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[(lengths[:, 0] == 0) | (False if are_unit is None else are_unit)] = 1
    return (vectors / lengths).astype(np.float32)


class TextRefusedError(ServiceError):
    """A text cannot be encoded; who knows whose text it is names the token.

    Attributes:
        position: of the text, among those given.
        reason: why, as a whole sentence or more.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"Text {position + 1} of those given cannot be encoded. {reason}")
        self.position = position
        self.reason = reason


#: Encoders by the names that ``--encoder`` takes; what one needs is imported only when it is asked for.
ENCODERS: Registry[type[Encoder]] = Registry(
    "encoder",
    "recbole_rlmrec.encoders",
    lambda part: checked_class(part, Encoder, "encoder"),
    {
        "openai": "recbole_rlmrec.encoder.openai_encoder:OpenAIEncoder",
        "sentence-transformers": "recbole_rlmrec.encoder.sentence_transformer:SentenceTransformerEncoder",
        "lsa": "recbole_rlmrec.encoder.lsa:LSAEncoder",
    },
)


def make_encoder(name: str, settings: Any) -> Encoder:
    """Make an encoder by name; a model is loaded when the first text is encoded.

    Args:
        name: one of ``ENCODERS``.
        settings: of the encoder's ``settings_class``.

    Raises:
        SettingError: the name is unknown, a setting is missing or cannot be used, or a package is not installed.
        ContractError: the encoder's class breaks the contract.
    """
    encoder_class = ENCODERS.find(name)
    with failures_named("encoder", encoder_class):
        encoder = encoder_class(settings)
    if not isinstance(getattr(encoder, "name", None), str):
        raise ContractError(
            f"{type(encoder).__name__} breaks the contract of encoders: it sets no name, which says what made the "
            "vectors."
        )
    return encoder


def require_unset(encoder: str, settings: EncoderSettings, *names: str) -> None:
    """Raise unless these settings, which the encoder cannot use, have their defaults."""
    default = EncoderSettings()
    for name in names:
        value = getattr(settings, name)
        if value != getattr(default, name):
            raise SettingError(f"The encoder {encoder} cannot use {name} ({value!r}). Leave it out.")
