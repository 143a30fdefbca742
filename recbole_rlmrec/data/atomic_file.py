"""What RecBole's atomic files, which are tab-separated text, can hold as ids, and what they can be named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.recbole_names import PAD_TOKEN

# pandas, and so RecBole, reads these as a missing value, even in a text column and in quotes. RecBole then counts the
# interactions of such an id as [PAD]'s.
# fmt: off
MISSING_TOKENS = frozenset([
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
])
# fmt: on

_UNWRITABLE = re.compile("[\t\r\n\0\ud800-\udfff]|^\\s+|\\s+$")


def check_dataset_name(dataset: str) -> None:
    """Check that a dataset's name can be a file's name.

    Raises:
        SettingError: it cannot.
    """
    if dataset in ("", ".", "..") or re.search(r"[/\\\0]", dataset):
        raise SettingError(f"The dataset's name is {dataset!r}, expected a plain file name such as 'amazon-book'.")


def token_fault(token: str) -> str | None:
    """Say why a token cannot stand in a tab-separated line, or None if it can."""
    if not token:
        return "is empty"
    if token == PAD_TOKEN:
        return "is RecBole's own name of the padding id"
    if re.search(r"[\t\r\n\0]", token):
        return "holds a tab, a line break or a null character"
    if token != token.strip():
        return "begins or ends with a space"
    return None if is_unicode(token) else "holds half a surrogate pair"


def is_unicode(text: str) -> bool:
    """Return whether text can be written as UTF-8, which half a surrogate pair cannot."""
    return not re.search("[\ud800-\udfff]", text)


def repair_tokens(tokens: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Change the ids that RecBole's files cannot hold or would read as missing, such as a Steam user named "null".

    Tabs, line breaks, null characters, halves of surrogate pairs and blanks at either end are percent-encoded; what
    RecBole would take for a missing or its padding id gets an underscore after it. No two ids become one.

    Args:
        tokens: distinct ids, none of them empty.

    Returns:
        The tokens in their order, and old -> new of those that were changed.
    """
    taken, repaired, changes = set(tokens), [], {}
    for token in tokens:
        new = _UNWRITABLE.sub(lambda match: quote(match[0], safe="", errors="surrogatepass"), token)
        while new in MISSING_TOKENS or new == PAD_TOKEN or (new != token and new in taken):
            new += "_"
        if new != token:
            changes[token] = new
            taken.add(new)
        repaired.append(new)
    return repaired, changes


def quoted(token: str) -> str:
    """Quote a token that begins with a quote: RecBole reads fields as CSV, where that would open a quoted field."""
    return '"' + token.replace('"', '""') + '"' if token.startswith('"') else token
