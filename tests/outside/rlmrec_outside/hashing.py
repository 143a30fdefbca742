"""An encoder: counts of words, each in the column of its hash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np

from recbole_rlmrec.encoder.base import Encoder
from recbole_rlmrec.settings import Range, Settings, setting


@dataclass(frozen=True)
class HashSettings(Settings):
    hash_columns: int = setting(16, Range(1, whole=True), "hashing: length of a vector")


class HashEncoder(Encoder):
    known_as = "hashing"
    settings_class: ClassVar[type] = HashSettings

    def __init__(self, settings: HashSettings) -> None:
        super().__init__(settings)
        self.name = f"hashing:{settings.hash_columns}"  # all that changes the vectors

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.settings.hash_columns), dtype=np.float32)
        for row, text in zip(vectors, texts):
            np.add.at(row, [crc32(word.encode()) % len(row) for word in text.lower().split()], 1.0)
        return vectors
