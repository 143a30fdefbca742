"""Write profiles, encode them and check the result.

Profiles come from the texts of items and from training interactions, by a template or by a language model. What is
there already is kept, and a stopped run goes on where it stopped.

Example:
    recbole-rlmrec build-semantics --dataset ml-100k --data_path=mydata
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.arguments import add_dataset_arguments, dataset_config, path, settings_given
from recbole_rlmrec.errors import RLMRecError, SettingError
from recbole_rlmrec.settings import Settings, completed
from recbole_rlmrec.wording import printable

if TYPE_CHECKING:
    from recbole_rlmrec.encoder.base import Encoder
    from recbole_rlmrec.parts import Registry
    from recbole_rlmrec.profile.writer import Writer

#: Options of a writer that asks a language model -> field of its settings. (The key's variable is the encoder's too.)
_WRITER_OPTIONS = {
    "llm": "model",
    "llm_base_url": "base_url",
    **{
        name: name
        for name in (
            *("concurrency", "timeout", "max_retries", "temperature", "max_tokens"),
            *("limit", "retry_failed", "budget", "input_price", "output_price"),
        )
    },
}
_BATCH_OPTIONS = {"wait": "wait"}

#: Options that say where the dataset lies and what the embeddings are called, or what is done in one run alone.
_ONCE = {
    "--dataset",
    "--data_path",
    "--semantic",
    "--dry-run",
    "--show-prompt",
    "--overwrite",
    "--rewrite-older",
    "--limit",
    "--retry-failed",
    "--budget",
    "--wait",
}

#: How a value begins that may hold a password.
_ADDRESS = re.compile(r"\w+://")

#: Options of an encoder -> field of its settings.
_ENCODER_OPTIONS = {
    "encoder_model": "model",
    "encoder_base_url": "base_url",
    "encoder_prompt": "prompt",
    "dimension": "dimension",
    "device": "device",
    "batch_size": "batch_size",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.encoder.base import ENCODERS
    from recbole_rlmrec.profile.writer import WRITERS

    add_dataset_arguments(parser)
    parser.set_defaults(changed=None)  # which update knows
    parser.add_argument(
        "--writer", choices=tuple(WRITERS), default="template", help="who writes the profiles (%(default)s)"
    )
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="lsa", help="what encodes them (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print counts, tokens and cost, and do nothing")
    parser.add_argument(
        "--show-prompt", type=int, metavar="N", help="print the prompts of N items and N users, and do nothing"
    )
    parser.add_argument("--float16", action="store_true", help="store vectors in half precision")
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors as long as the encoder makes them")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace embeddings of other profiles or of another encoder"
    )
    parser.add_argument(
        "--rewrite-older",
        action="store_true",
        help="write profiles again that are by an older prompt or template; with a language model that costs",
    )
    group = parser.add_argument_group("prompts")
    group.add_argument("--token-budget", type=int, metavar="N", help="tokens of a prompt's text at most (2000)")
    group.add_argument("--reviews-per-item", type=int, metavar="N", help="reviews shown of an item at most (5)")
    group.add_argument(
        "--interactions-per-user", type=int, metavar="N", help="of a user at most (as many as fit, at least 10)"
    )
    group.add_argument("--prompt-seed", type=int, metavar="N", help="which of them are shown (2023)")
    group = parser.add_argument_group(
        "language model (--writer llm): any server that speaks OpenAI's API; the key is read from the environment"
    )
    group.add_argument("--llm", metavar="MODEL", help="its name on the server, such as gpt-4o-mini")
    group.add_argument("--llm-base-url", metavar="URL", help="such as http://localhost:8000/v1 (OpenAI's)")
    group.add_argument("--key-variable", metavar="NAME", help="environment variable with the key (OPENAI_API_KEY)")
    group.add_argument("--concurrency", type=int, metavar="N", help="requests at a time (8)")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="of a request (60)")
    group.add_argument("--max-retries", type=int, metavar="N", help="of a request (5)")
    group.add_argument("--temperature", type=float, metavar="T", help="how freely it writes (0)")
    group.add_argument("--max-tokens", type=int, metavar="N", help="of an answer (600)")
    group.add_argument("--limit", type=int, metavar="N", help="users to ask for in this run at most, with their items")
    group.add_argument(
        "--retry-failed",
        action="store_true",
        default=None,
        help="ask again what was refused before; with --batch, whatever failed before",
    )
    group.add_argument("--budget", type=float, metavar="USD", help="what this run may cost; needs the prices")
    group.add_argument("--input-price", type=float, metavar="USD", help="per million tokens sent")
    group.add_argument("--output-price", type=float, metavar="USD", help="per million tokens written")
    group.add_argument(
        "--batch", action="store_true", help="ask by the Batch API, at half the price, in hours; as --writer batch"
    )
    group.add_argument("--wait", action="store_true", default=None, help="with --batch: wait until the batches end")
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--encoder-model", type=path, metavar="MODEL", help="its name, or a folder (sentence-transformers)"
    )
    group.add_argument("--encoder-base-url", metavar="URL", help="of an OpenAI-compatible server (OpenAI's)")
    group.add_argument("--encoder-prompt", metavar="TEXT", help="instruction before each text")
    group.add_argument("--dimension", type=int, metavar="D", help="length of a vector (lsa: 256)")
    group.add_argument("--device", help="of sentence-transformers, such as cpu or cuda:0")
    group.add_argument("--batch-size", type=int, metavar="N", help="texts encoded at a time (64)")


def run(arguments: argparse.Namespace) -> int:
    """Build and print what is done; 1 says that something leaked or that profiles are still to come.

    Where they are still to come because a limit was asked for and reached, the status is 0.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.semantics.build_semantics`.
    """
    from recbole_rlmrec.encoder.base import ENCODERS, make_encoder
    from recbole_rlmrec.parts import failures_named
    from recbole_rlmrec.profile.prompt import PromptSettings
    from recbole_rlmrec.profile.writer import WRITERS
    from recbole_rlmrec.semantics import BuildSettings, build_semantics

    # First, since they declare the settings that the configuration may hold.
    writer_class = WRITERS.find(_writer_name(arguments))
    encoder_class = ENCODERS.find(arguments.encoder)
    _refuse_settings_of_others(arguments, {"writer": (WRITERS, writer_class), "encoder": (ENCODERS, encoder_class)})
    config = dataset_config(arguments)
    _refuse_unused(arguments, writer_class, encoder_class)
    with failures_named("writer", writer_class):
        writer = writer_class(_writer_settings(writer_class, arguments, config))
    settings = BuildSettings(
        writer=writer,
        encoder=make_encoder(arguments.encoder, _encoder_settings(encoder_class, arguments, config)),
        prompts=settings_given(PromptSettings, arguments, {"seed": "prompt_seed"}, domain=config["text_domain"]),
        dry_run=arguments.dry_run,
        show_prompts=arguments.show_prompt,
        rewrite_older=arguments.rewrite_older,
        changed=arguments.changed,
        float16=arguments.float16,
        normalize=not arguments.no_normalize,
        overwrite=arguments.overwrite,
        options=_recorded(arguments.words),
    )
    report = build_semantics(config, settings, report=partial(print, flush=True))
    if report is None:
        return 0 if settings.writes_nothing or writer.has_reached_limit else 1
    text = printable(str(report))
    # Of an update, which changes little of what is known, the last line says enough; `check` shows all of it.
    print(text if arguments.changed is None else text.splitlines()[-1])
    return int(report.has_leak)


def _recorded(words: Sequence[str]) -> tuple[str, ...]:
    """Return the options that make the same profiles and embeddings again: of addresses what may be shown.

    >>> _recorded(["--dataset=shop", "--item_title_field=title", "--overwrite", "--llm-base-url=http://me:p@ss@host/v1"])
    ('--item_title_field=title', '--llm-base-url=http://host/v1')
    """
    from recbole_rlmrec.openai_client import shown_address

    found = []
    for word in words:
        name, _, value = word.partition("=")
        if name not in _ONCE:
            found.append(f"{name}={shown_address(value)}" if _ADDRESS.match(value) else word)
    return tuple(found)


def _writer_name(arguments: argparse.Namespace) -> str:
    """Return the writer that is asked for; ``--batch`` makes the language model's that of batches.

    Raises:
        SettingError: ``--batch`` is given with another writer.
    """
    if not arguments.batch:
        return str(arguments.writer)
    if arguments.writer not in ("llm", "batch"):
        raise SettingError(f"--batch is for --writer llm; the writer '{arguments.writer}' sends no batches.")
    return "batch"


def _refuse_unused(arguments: argparse.Namespace, writer: type[Writer], encoder: type[Encoder]) -> None:
    """Raise if an option is given that the writer or the encoder has no field for."""
    taken = {field.name for field in fields(writer.settings_class)}
    for options, remedy in (
        (_WRITER_OPTIONS, f"is for --writer llm; the writer '{writer.known_as}' asks nobody."),
        (_BATCH_OPTIONS, "is for --batch."),
    ):
        for option, field in options.items():
            if getattr(arguments, option) is not None and field not in taken:
                raise SettingError(f"--{option.replace('_', '-')} {remedy}")
    taken = {field.name for field in fields(encoder.settings_class)}
    for option, field in _ENCODER_OPTIONS.items():
        if getattr(arguments, option) is not None and field not in taken:
            usable = sorted(name.replace("_", "-") for name, field in _ENCODER_OPTIONS.items() if field in taken)
            named = sorted(taken) if issubclass(encoder.settings_class, Settings) else []
            known = ", ".join(f"--{name}=..." for name in [*usable, *named]) or "none"
            raise SettingError(
                f"The encoder {encoder.known_as} cannot use --{option.replace('_', '-')}. Leave it out; its settings "
                f"are: {known}."
            )


def _refuse_settings_of_others(
    arguments: argparse.Namespace, chosen: Mapping[str, tuple[Registry[Any], type[Any]]]
) -> None:
    """Raise if a setting is given that only a writer or an encoder declares which is not asked for.

    Args:
        arguments: the parsed command line.
        chosen: kind of part -> its registry and the part that is asked for.
    """
    from recbole_rlmrec.config import is_setting

    unknown = {name for name in arguments.settings if not is_setting(name)}
    for kind, (registry, part) in chosen.items():
        for other in registry if unknown else ():
            try:
                kind_of_settings = registry[other].settings_class
            except RLMRecError:  # one that cannot be loaded has said so when it was asked for
                continue
            declared = (
                {each.name for each in fields(kind_of_settings)} if issubclass(kind_of_settings, Settings) else ()
            )
            for name in sorted(unknown.intersection(declared)):
                raise SettingError(
                    f"--{name} is a setting of the {kind} '{other}', and this run has the {kind} '{part.known_as}'. "
                    f"Give --{kind} {other}, or leave it out."
                )


def _writer_settings(writer: type[Writer], arguments: argparse.Namespace, config: Any) -> Any:
    kind: Any = writer.settings_class
    if issubclass(kind, Settings):
        return completed(kind, config)
    names = {field: option for option, field in {**_WRITER_OPTIONS, **_BATCH_OPTIONS}.items()}
    needs_model = any(field.name == "model" and field.default is MISSING for field in fields(kind))
    if needs_model and arguments.llm is None:
        raise SettingError(f"--writer {arguments.writer} needs the name of a model: --llm gpt-4o-mini, say.")
    return settings_given(kind, arguments, names)


def _encoder_settings(encoder: type[Encoder], arguments: argparse.Namespace, config: Any) -> Any:
    kind = encoder.settings_class
    if issubclass(kind, Settings):
        return completed(kind, config)
    names = {field: option for option, field in _ENCODER_OPTIONS.items()}
    return settings_given(kind, arguments, names, without=("concurrency", "timeout", "max_retries"))
