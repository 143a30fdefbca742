"""Looking before paying: prompts to read, and which items the prompts of a few users show."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from recbole_rlmrec.profile.prompt import Prompt, user_prompts
from recbole_rlmrec.profile.record import read_profiles
from recbole_rlmrec.profile.template import TemplateWriter
from recbole_rlmrec.profile.writer import Task
from recbole_rlmrec.sides import SIDES


def stand_ins(task: Task) -> dict[str, str]:
    """Return item token -> a text in place of a profile that is still to be written: the template's."""
    return {profile.token: profile.profile for profile in TemplateWriter().profiles(task, "item", {})[0]}


def items_shown(task: Task, users: Collection[str], item_profiles: Mapping[str, str]) -> set[str]:
    """Return the tokens of the items that the prompts of some users show.

    Args:
        task: what is written.
        users: tokens of the users.
        item_profiles: item token -> profile, of the items that have one: the longer, the fewer items fit.
    """
    corpus = replace(task.corpus, users={token: task.corpus.users[token] for token in users})
    prompts, _ = user_prompts(corpus, item_profiles, task.settings)
    return {item for prompt in prompts for item in prompt.interacted}


def show_prompts(task: Task, number: int) -> None:
    """Report the first prompts of either side, as a language model would get them; ask nobody and write nothing.

    Users' prompts hold the items' recorded profiles and, where there is none, the template's text.

    Args:
        task: what would be written.
        number: how many of a side.
    """
    item_profiles = stand_ins(task)
    if task.profiles_path("item").is_file():
        recorded = read_profiles(task.profiles_path("item"))
        item_profiles.update({token: profile.profile for token, profile in recorded.items()})
    for side in reversed(SIDES):
        prompts, without = task.prompts.of(side, item_profiles)
        task.report_without(side, without)
        if prompts:
            task.report(f"Instruction for {side}s:\n\n{prompts[0].system}\n")
        for prompt in prompts[:number]:
            task.report(_shown(prompt))


def _shown(prompt: Prompt) -> str:
    shown = f", {len(prompt.interacted)} interactions" if prompt.side == "user" else ""
    return f"{prompt.side} {prompt.token} (about {prompt.tokens} tokens{shown}):\n\n{prompt.text}\n"
