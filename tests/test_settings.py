"""Settings are declared once for checking and once for typing; the two must not part."""

from __future__ import annotations


def test_settings_declared_twice_agree() -> None:
    from typing import get_args, get_type_hints

    from recbole_rlmrec.model.alignment import contrastive, generative
    from recbole_rlmrec.model.backbone import autocf, base, sgl
    from recbole_rlmrec.model.baseline import alpharec, kar, semantic_only
    from recbole_rlmrec.settings import SETTINGS, Choice

    for module in (contrastive, generative, autocf, base, sgl, alpharec, kar, semantic_only):
        for member in vars(module).values():
            if isinstance(member, type) and hasattr(member, "from_config") and member.__name__ != "Settings":
                for field, hint in get_type_hints(member).items():
                    if isinstance(SETTINGS[field].allowed, Choice):
                        assert get_args(hint) == SETTINGS[field].allowed.words, field
