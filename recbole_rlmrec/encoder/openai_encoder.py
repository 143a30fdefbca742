"""Vectors from any server that speaks OpenAI's ``/embeddings``."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, TextRefusedError, require_unset
from recbole_rlmrec.errors import ServiceError, SettingError
from recbole_rlmrec.openai_client import Server, is_out_of_money
from recbole_rlmrec.server.fields import placed, read_vector, token_count

if TYPE_CHECKING:
    from openai import OpenAI

# Bad request, content too large, unprocessable: the input is at fault, so a smaller one may do. So may it after a
# server error, which some servers answer where a model fails at one text.
_INPUT_ERRORS = (400, 413, 422)
_SERVER_ERRORS = 500
# Any model takes it: where it is refused, the texts are not at fault.
_HARMLESS_TEXT = "text"
# A vector of 16,384 numbers takes less, and so does everything around the vectors.
_MAX_BYTES_PER_TEXT, _MAX_BYTES_AROUND = 400_000, 1_000_000
_DIMENSIONS = re.compile(r"dimension|matryoshka|output_dim", re.IGNORECASE)
_ENCODING_FORMAT = re.compile(r"encoding[_ ]format", re.IGNORECASE)
_BATCH_SIZE = re.compile(r"batch", re.IGNORECASE)

_logger = logging.getLogger(__name__)


class OpenAIEncoder(Encoder):
    """A model behind ``/embeddings``: batches of texts, some under way at the same time."""

    known_as = "openai"
    asks_server = True

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
        # What is under way at the same time; of a block that fails, what was answered is kept.
        self.block_size = settings.batch_size * settings.concurrency
        self._batch_size = settings.batch_size  # smaller once the server has refused it
        self._counts: list[int] = []  # of each request; a sum would lose some to another thread
        self._answered: dict[int, np.ndarray] = {}

    @cached_property
    def client(self) -> OpenAI:
        """The client, made when first used."""
        return self.server.client(_MAX_BYTES_AROUND + _MAX_BYTES_PER_TEXT * self.settings.batch_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the server's vectors, float32 ``[n, D]``, in the order of the texts.

        Raises:
            TextRefusedError: the server refuses a text, such as one that is too long, or fails at it.
            ServiceError: the key is missing or wrong, the server cannot be reached, or its answer is unusable.
            SettingError: the model cannot make vectors of the dimension asked for.
        """
        size = self._batch_size
        batches = [
            (start, [self.settings.prompt + text for text in texts[start : start + size]])
            for start in range(0, len(texts), size)
        ]
        self._answered = {}
        client = self.client
        with self.server.explained(self.model), ThreadPoolExecutor(self.settings.concurrency) as pool:
            answers = [pool.submit(self._request, client, batch, start) for start, batch in batches]
            try:
                for answer in answers:
                    answer.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)  # after an error the rest is not asked for
        lengths = Counter(map(len, self._answered.values()))
        if len(lengths) > 1:
            usual = lengths.most_common(1)[0][0]
            self._answered = {place: row for place, row in self._answered.items() if len(row) == usual}
            raise ServiceError(
                f"{self.server.shown_url} returned vectors of the lengths {sorted(lengths)} for the model "
                f"'{self.model}', expected one length. Ask a server that runs one model only."
            )
        rows, self._answered = self._answered, {}
        return np.array([rows[place] for place in range(len(texts))], dtype=np.float32).reshape(len(texts), -1)

    def answered(self) -> Mapping[int, np.ndarray]:
        """Return position -> vector of the texts that were answered before the last ``encode`` failed."""
        return self._answered

    def notes(self) -> tuple[str, ...]:
        """Return how many tokens the server counted."""
        n_tokens = sum(self._counts)
        return (f"{self.server.shown_url} counted {n_tokens:,} tokens",) if n_tokens else ()

    def _request(self, client: OpenAI, texts: list[str], start: int, *, is_part: bool = False) -> None:
        """Ask for the vectors of a batch, and keep them.

        If the server finds fault with the input, or fails at it, each half is asked for alone: the whole may be too
        much for one request, and if it is not, this finds the text at fault. But not if it fails at any text.

        Args:
            client: the client.
            texts: the batch.
            start: position of its first text.
            is_part: whether this is a part of a batch that was refused.
        """
        from openai import APIStatusError

        options = self._options
        try:
            answer = client.post("/embeddings", cast_to=object, body={"input": texts, **options})
        except APIStatusError as error:
            if self._adapts(options, error):
                self._request(client, texts, start, is_part=is_part)
                return
            is_of_input = error.status_code in _INPUT_ERRORS or error.status_code >= _SERVER_ERRORS
            if not is_of_input or is_out_of_money(error):
                raise
            hasty = client.with_options(max_retries=min(1, self.settings.max_retries))
            if not is_part and not self._takes_a_harmless_text(hasty):
                raise
            if len(texts) == 1:
                raise TextRefusedError(
                    start, f"{self.server.shown_url} refuses it for the model '{self.model}': {_sentence(error, self)}"
                ) from None
            middle = len(texts) // 2
            if _BATCH_SIZE.search(str(error)):
                self._batch_size = max(1, min(self._batch_size, middle))
            self._request(hasty, texts[:middle], start, is_part=True)
            self._request(hasty, texts[middle:], start + middle, is_part=True)
        else:
            self._keep(answer, len(texts), start)

    def _adapts(self, options: Mapping[str, Any], error: Any) -> bool:
        """Whether a refused request is worth asking again without a parameter.

        Raises:
            SettingError: the parameter is the dimension, which the user asked for.
        """
        text = f"{error.param} {error}"
        if error.status_code not in (400, 422, 500, 501):
            return False
        if "encoding_format" in options and _ENCODING_FORMAT.search(text):
            if "encoding_format" in self._options:  # several requests may meet the same refusal
                self._options = {name: value for name, value in self._options.items() if name != "encoding_format"}
                _logger.warning("The server does not take encoding_format; it is left out from now on.")
            return True
        if "dimensions" in options and _DIMENSIONS.search(text):
            raise SettingError(
                f"{self.server.shown_url} does not make vectors of {self.settings.dimension} dimensions with the model "
                f"'{self.model}': {_sentence(error, self)} Leave the dimension out (--dimension), or take one that "
                "the model has."
            )
        return False

    def _takes_a_harmless_text(self, client: OpenAI) -> bool:
        """Whether the server makes a vector of a text at which no model can fail."""
        from openai import APIStatusError

        try:
            client.post("/embeddings", cast_to=object, body={"input": [_HARMLESS_TEXT], **self._options})
        except APIStatusError:
            return False
        return True

    def _keep(self, answer: Any, n_texts: int, start: int) -> None:
        """Keep an answer's vectors that are any, each at its text's position; raise if one is missing or none."""
        fields = answer if isinstance(answer, dict) else {}
        entries = fields.get("data")
        if not isinstance(entries, list):
            raise ServiceError(self._unusable("an answer without 'data'"))
        entries = [entry if isinstance(entry, dict) else {} for entry in entries]
        indices = [entry.get("index") for entry in entries]
        places = placed(indices) if len(entries) == n_texts else None
        if places is None:
            n_different = len({repr(index) for index in indices})
            raise ServiceError(
                self._unusable(f"{len(entries)} vectors with {n_different} different 'index' for {n_texts} texts")
            )
        vectors = dict(zip(places, (read_vector(entry.get("embedding")) for entry in entries)))
        found = {place: vector for place, vector in vectors.items() if vector is not None}
        wanted = self.settings.dimension
        wrong = next((len(vector) for vector in found.values() if wanted not in (None, len(vector))), None)
        if wrong is not None:
            raise SettingError(
                f"{self.server.shown_url} returned vectors of {wrong} dimensions for the model '{self.model}', and "
                f"{wanted} were asked for: it does not know that option. Leave the dimension out (--dimension)."
            )
        self._answered.update((start + place, vector) for place, vector in found.items())
        usage = fields.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        self._counts.append(token_count(usage.get("total_tokens")) or token_count(usage.get("prompt_tokens")) or 0)
        if len(found) < n_texts:
            what = "an 'embedding' that is no list of numbers within float32"
            if not found:
                raise ServiceError(self._unusable(what))
            bad = min(set(vectors) - set(found))
            raise TextRefusedError(start + bad, f"{self.server.shown_url} returned {what} for it.")

    def _unusable(self, what: str) -> str:
        return (
            f"{self.server.shown_url} returned {what} for the model '{self.model}'; expected a list 'data' with "
            "'index' and 'embedding' (numbers) for each text. Check that the address is that of an OpenAI-compatible "
            "server, and that the model is one for embeddings."
        )


def _sentence(error: BaseException, encoder: OpenAIEncoder) -> str:
    """Return what the server said as a sentence."""
    return encoder.server.describe(error).rstrip(".") + "."
