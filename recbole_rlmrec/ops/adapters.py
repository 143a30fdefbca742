"""Low-rank adapters (LoRA) of a language model: few trained weights beside its frozen ones."""

from __future__ import annotations

from typing import Any

from recbole_rlmrec.errors import SettingError


def check_rank(rank: int, width: int, option: str, model: str) -> None:
    """Check that adapters are smaller than what they change.

    Args:
        rank: of the adapters.
        width: of the model's layers.
        option: what asked for the rank, such as ``lora_rank=8``.
        model: its name.

    Raises:
        SettingError: the rank is larger than the width.
    """
    if rank > width:
        raise SettingError(
            f"{option} is larger than the width of {model}, {width}: adapters of such a rank hold more weights "
            "than what they change. Give a smaller one, such as 8."
        )


def with_adapters(model: Any, rank: int) -> Any:
    """Return a ``transformers`` model with adapters at all its linear layers, which alone are trained.

    The layers of ``model`` itself are replaced: it computes with the adapters, too.
    """
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    return get_peft_model(model, adapters)
