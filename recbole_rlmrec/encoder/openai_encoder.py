"""Vectors from any server that speaks OpenAI's ``/embeddings``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, TextRefusedError, require_unset
from recbole_rlmrec.errors import ServiceError, SettingError
from recbole_rlmrec.openai_client import Server

if TYPE_CHECKING:
    from openai import OpenAI

# Bad request, content too large, unprocessable: the input is at fault, so a smaller one may do.
_INPUT_ERRORS = (400, 413, 422)


class OpenAIEncoder(Encoder):
    """A model behind ``/embeddings``: batches of texts, some under way at the same time."""

    known_as = "openai"

    def __init__(self, settings: EncoderSettings) -> None:
        require_unset("openai", settings, "device")
        if not settings.model:
            raise SettingError("The encoder openai needs a model, such as text-embedding-3-small.")
        self.settings = settings
        self.model: str = settings.model
        self.server = Server(settings.base_url, settings.key_variable, settings.timeout, settings.max_retries)
        self.name = f"openai:{self.model}"
        self._options: dict[str, Any] = {"model": self.model, "encoding_format": "float"}
        if settings.dimension is not None:
            self.name += f", {settings.dimension} dimensions"
            self._options["dimensions"] = settings.dimension
        if settings.prompt:
            self.name += f", prompt {settings.prompt!r}"
        # What fails loses at most one block that was paid for.
        self.block_size = settings.batch_size * settings.concurrency
        self._n_tokens = 0

    @cached_property
    def client(self) -> OpenAI:
        """The client, made when first used."""
        return self.server.client()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the server's vectors, float32 ``[n, D]``, in the order of the texts.

        Raises:
            TextRefusedError: the server refuses a text, such as one that is too long.
            ServiceError: the key is missing or wrong, the server cannot be reached, or its answer is unusable.
        """
        size = self.settings.batch_size
        batches = [
            (start, [self.settings.prompt + text for text in texts[start : start + size]])
            for start in range(0, len(texts), size)
        ]
        client = self.client
        with self.server.explained(self.model), ThreadPoolExecutor(self.settings.concurrency) as pool:
            answers = [pool.submit(self._request, client, batch, start) for start, batch in batches]
            try:
                parts = [answer.result() for answer in answers]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)  # after an error the rest is not asked for
        self._n_tokens += sum(n_tokens for _, n_tokens in parts)
        rows = [row for vectors, _ in parts for row in vectors]
        dimensions = sorted({len(row) for row in rows})
        if len(dimensions) > 1:
            raise ServiceError(
                f"{self.server.shown_url} returned vectors of the lengths {dimensions} for the model '{self.model}', "
                "expected one length. Ask a server that runs one model only."
            )
        return np.array(rows, dtype=np.float32).reshape(len(texts), -1)

    def notes(self) -> tuple[str, ...]:
        """Return how many tokens the server counted."""
        return (f"{self.server.shown_url} counted {self._n_tokens:,} tokens",) if self._n_tokens else ()

    def _request(self, client: OpenAI, texts: list[str], start: int) -> tuple[list[list[float]], int]:
        """Ask for the vectors of a batch.

        If the server finds fault with the input, each half is asked for alone: the whole may be too much for one
        request, and if it is not, this finds the text at fault.

        Args:
            client: the client.
            texts: the batch.
            start: position of its first text, for messages.

        Returns:
            A vector for each text, and the tokens that the server counted.
        """
        import openai

        try:
            answer = client.embeddings.create(input=texts, **self._options)
        except openai.APIStatusError as error:
            if error.status_code not in _INPUT_ERRORS:
                raise
            if len(texts) == 1:
                raise TextRefusedError(
                    start, f"{self.server.shown_url} refuses it for the model '{self.model}': {_sentence(error, self)}"
                ) from None
            middle = len(texts) // 2
            vectors, n_tokens = self._request(client, texts[:middle], start)
            more_vectors, more_tokens = self._request(client, texts[middle:], start + middle)
            return vectors + more_vectors, n_tokens + more_tokens
        except ValueError as error:  # no JSON
            raise ServiceError(self._unusable(f"no JSON ({self.server.scrub(str(error))})")) from None
        return self._checked(answer, len(texts))

    def _checked(self, answer: Any, n_texts: int) -> tuple[list[list[float]], int]:
        """Return an answer's vectors, in the order of its request, and its tokens; raise unless all are there."""
        data = getattr(answer, "data", None)
        if not isinstance(data, list):
            raise ServiceError(self._unusable("an answer without 'data'"))
        by_index = {getattr(each, "index", None): getattr(each, "embedding", None) for each in data}
        if len(data) != n_texts or set(by_index) != set(range(n_texts)):
            raise ServiceError(
                self._unusable(f"{len(data)} vectors with {len(by_index)} different 'index' for {n_texts} texts")
            )
        vectors: list[Any] = [by_index[index] for index in range(n_texts)]
        for vector in vectors:
            if not isinstance(vector, list) or not vector or not all(isinstance(each, (int, float)) for each in vector):
                raise ServiceError(self._unusable("an 'embedding' that is no list of numbers"))
        usage = getattr(answer, "usage", None)
        return vectors, int(getattr(usage, "total_tokens", None) or getattr(usage, "prompt_tokens", None) or 0)

    def _unusable(self, what: str) -> str:
        return (
            f"{self.server.shown_url} returned {what} for the model '{self.model}'; expected a list 'data' with "
            "'index' and 'embedding' (numbers) for each text. Check that the address is that of an OpenAI-compatible "
            "server, and that the model is one for embeddings."
        )


def _sentence(error: BaseException, encoder: OpenAIEncoder) -> str:
    """Return what the server said as a sentence."""
    return encoder.server.describe(error).rstrip(".") + "."
