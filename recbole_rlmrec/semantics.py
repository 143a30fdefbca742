"""From a dataset with text to its semantic embeddings: prompts, profiles, embeddings and a check, in one command."""

from __future__ import annotations

import argparse
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Mapping, Optional, Sequence, TypeVar

from recbole_rlmrec.check.report import CheckReport, check, check_corpus
from recbole_rlmrec.encoder.base import ENCODERS, Encoder, EncoderName, EncoderSettings, make_encoder
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.profile.batch import collect, requests_under_way, submit
from recbole_rlmrec.profile.cost import shown_cost
from recbole_rlmrec.profile.encode_profiles import encode_profiles
from recbole_rlmrec.profile.llm import LLMSettings, LLMWriter, WriteSummary
from recbole_rlmrec.profile.prompt import Prompt, PromptSettings, item_prompts, user_prompts
from recbole_rlmrec.profile.record import Failure, Profile, ProfileLog, failures_path, profiles_path, read_failures
from recbole_rlmrec.profile.template import TemplateWriter
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus
from recbole_rlmrec.text.load import load_corpus

WriterName = Literal["template", "llm"]
WRITERS = ("template", "llm")

#: Arguments of the command line that only a language model can use.
_LLM_ARGUMENTS = (
    *("llm", "llm_base_url", "concurrency", "timeout", "max_retries", "temperature", "max_tokens"),
    *("limit", "budget", "input_price", "output_price"),
)

#: Seconds between two looks at batches that are waited for.
BATCH_POLL_SECONDS = 60.0

_SettingsT = TypeVar("_SettingsT")


@dataclass(frozen=True)
class BuildSettings:
    """How semantic embeddings are made.

    Attributes:
        writer: who writes the profiles.
        encoder: what turns them into vectors.
        prompts: how prompts are built; their domain is also the template's.
        llm: the language model; None for the template.
        encoding: the encoder's own settings.
        batch: ask by the Batch API, at half the price: each call collects what is done and submits what is next.
        wait: look at running batches again until they end.
        retry_failed: submit prompts again that failed in an earlier batch.
        dry_run: say what would be asked and what it would cost, and do nothing.
        float16: store half precision.
        normalize: scale each vector to length 1.
        overwrite: replace embeddings of other profiles or another encoder.

    Raises:
        SettingError: the settings do not go together.
    """

    writer: WriterName = "template"
    encoder: EncoderName = "lsa"
    prompts: PromptSettings = field(default_factory=PromptSettings)
    llm: Optional[LLMSettings] = None
    encoding: EncoderSettings = field(default_factory=EncoderSettings)
    batch: bool = False
    wait: bool = False
    retry_failed: bool = False
    dry_run: bool = False
    float16: bool = False
    normalize: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.writer == "llm" and self.llm is None:
            raise SettingError("--writer llm needs the name of a model: --llm gpt-4o-mini, say.")
        if self.writer != "llm" and (self.llm is not None or self.batch):
            raise SettingError("--llm and --batch are for --writer llm; the template asks nobody.")
        if not self.batch and (self.wait or self.retry_failed):
            raise SettingError("--wait and --retry-failed are for --batch.")
        if self.llm is not None and self.llm.limit == 0:
            raise SettingError("--limit 0 asks for nothing; give at least 1, or --dry-run.")


def build_semantics(config: Any, settings: BuildSettings, progress: bool = True) -> Optional[CheckReport]:
    """Write the profiles of a dataset, encode them, and check the result; print what is done.

    Items come first, since users' prompts tell their profiles. What is there already is not made again, so a call that
    was stopped goes on where it was.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`; its first data folder is written to.
        settings: how.
        progress: show progress bars.

    Returns:
        The check; None if profiles are still to be written, and after a dry run.

    Raises:
        DataError: a file of the dataset is missing or malformed, or embeddings of other profiles are in the way.
        ServiceError: a server refuses, or cannot be reached.
        SettingError: a setting is wrong, or a package is missing.
    """
    encoder = make_encoder(settings.encoder, settings.encoding)
    corpus = load_corpus(config)
    folder = Path(config.data_folders[0])
    writing = _Writing(corpus, folder, settings, encoder, progress)
    if settings.dry_run:
        writing.print_plan()
        return None
    items = writing.write("item", {})
    users = None if items is None else writing.write("user", {token: item.profile for token, item in items.items()})
    if items is None or users is None:
        return None
    summary = encode_profiles(
        folder,
        corpus.dataset,
        encoder,
        profiles={"user": users, "item": items},
        float16=settings.float16,
        normalize=settings.normalize,
        overwrite=settings.overwrite,
        progress=progress,
    )
    print(summary, flush=True)
    separators = {key: config[key] for key in ("field_separator", "seq_separator")}
    return check_corpus(corpus, config.data_folders, settings.prompts, separators)


class _Writing:
    """Brings the profiles of each side up to date.

    Args:
        corpus: the texts.
        folder: folder of the profiles; made if missing.
        settings: who writes, and how.
        encoder: what will encode the profiles.
        progress: show progress bars.
    """

    def __init__(self, corpus: Corpus, folder: Path, settings: BuildSettings, encoder: Encoder, progress: bool) -> None:
        self._corpus, self._folder, self._settings = corpus, folder, settings
        self._encoder, self._progress = encoder, progress
        self._llm = settings.llm  # with what is left of its limit and its budget
        self._has_tried_encoder = False

    def write(self, side: Side, item_profiles: Mapping[str, str]) -> Optional[dict[str, Profile]]:
        """Write what is missing on one side.

        Returns:
            Token -> profile, by token; None if there is more to ask for, which was said.

        Raises:
            DataError: nobody gets a profile.
        """
        if self._llm is None:
            found = self._write_by_template(side)
        else:
            asked = self._write_by_llm(side, item_profiles)
            if asked is None:
                return None
            found = asked
        if not found:
            raise DataError(
                f"No {side} of '{self._corpus.dataset}' has a profile, so there is nothing to encode. Texts come from "
                f"items.jsonl and reviews.jsonl in '{self._folder}', or from the columns that item_title_field, "
                "item_description_field, item_attribute_fields, user_attribute_fields and review_field name; what a "
                f"language model failed to write is listed in {self._failures(side).name}."
            )
        return found

    def _write_by_llm(self, side: Side, item_profiles: Mapping[str, str]) -> Optional[dict[str, Profile]]:
        prompts, without = self._prompts(side, item_profiles)
        _say_who_gets_none(side, without)
        print(f"{side}s:", flush=True)
        is_done = self._ask_by_batch(side, prompts) if self._settings.batch else self._ask(side, prompts)
        if not is_done:
            return None
        with ProfileLog(self._path(side), read_only=True) as log:
            writer = self._settings_of_llm.writer
            found = {prompt.token: log.find(prompt.token, writer, prompt.sha256) for prompt in prompts}
        return {token: profile for token, profile in found.items() if profile is not None}

    def print_plan(self) -> None:
        """Print what would be asked, and for how much; users' prompts with stand-ins for items' missing profiles."""
        if self._settings.llm is None:
            for side in SIDES:
                profiles, without = self._by_template(side)
                _say_who_gets_none(side, without)
                print(f"{side}s: {len(profiles)} profiles by template; nobody is asked, nothing is to be paid.")
            return
        writer, total, is_exact = LLMWriter(self._settings.llm), 0.0, True
        stand_ins = {profile.token: profile.profile for profile in self._by_template("item")[0]}
        share = 0.5 if self._settings.batch else 1.0
        for side in reversed(SIDES):
            prompts, without = self._prompts(side, stand_ins)
            _say_who_gets_none(side, without)
            busy = requests_under_way(self._settings.llm, self._batches(side))
            free = [prompt for prompt in prompts if (prompt.token, writer.name, prompt.sha256) not in busy]
            with ProfileLog(self._path(side), read_only=True) as log:
                plan = writer.plan(free, log)
                for prompt in prompts if side == "item" else ():
                    known = log.find(prompt.token, writer.name, prompt.sha256)
                    is_exact = is_exact and known is not None
                    if known is not None:
                        stand_ins[prompt.token] = known.profile
            about = (
                "" if side == "item" or is_exact else " (with template texts for the item profiles that are missing)"
            )
            under_way = f" {len(prompts) - len(free)} more are in batches." if len(free) < len(prompts) else ""
            print(f"{side}s{about}: {plan}{under_way}", flush=True)
            total += share * (plan.cost or 0.0)
        if self._settings.llm.prices.known:
            print(f"Together: {shown_cost(total)}{' by the Batch API' if self._settings.batch else ''}.")

    def _ask(self, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Ask for what is not recorded; return whether everyone was asked."""
        llm = self._settings_of_llm
        busy = requests_under_way(llm, self._batches(side))
        n_busy = sum((prompt.token, llm.writer, prompt.sha256) in busy for prompt in prompts)
        if n_busy:
            raise SettingError(
                f"{n_busy} of these prompts are in batches under way, and would be paid for twice. Collect them with "
                "--batch."
            )
        with ProfileLog(self._path(side)) as log:
            self._try_encoder(prompts, log)
            summary = self._ask_once(side, prompts, log)
            if side == "item" and summary.n_failed and not summary.n_left:
                # Users' prompts hold items' profiles, and would have to be asked anew when these come later.
                print(f"Once more, for the {summary.n_failed} that failed:", flush=True)
                summary = self._ask_once(side, prompts, log)
        if summary.n_failed:
            print(f"What failed is listed in {self._failures(side)}; the next run tries it again.", flush=True)
            if side == "item":
                print("If an item succeeds then, the users whose prompts tell of it are asked anew.", flush=True)
        if summary.n_left:
            print(f"{summary.n_left} {side}s are left; the same command goes on with them.", flush=True)
        return not summary.n_left

    def _ask_once(self, side: Side, prompts: Sequence[Prompt], log: ProfileLog) -> WriteSummary:
        writer = LLMWriter(self._settings_of_llm)
        summary = writer.write(prompts, log, self._failures(side), self._corpus.train_sha256, self._progress)
        self._spend(summary.n_written + summary.n_failed, summary.cost)
        print(summary, flush=True)
        return summary

    def _spend(self, n_asked: int, cost: Optional[float]) -> None:
        """Take what was used from limit and budget, which are those of both sides together."""
        llm = self._settings_of_llm
        limit = None if llm.limit is None else max(0, llm.limit - n_asked)
        budget = None if llm.budget is None else max(0.0, llm.budget - (cost or 0.0))
        self._llm = replace(llm, limit=limit, budget=budget)

    def _try_encoder(self, prompts: Sequence[Prompt], log: ProfileLog) -> None:
        """Find out before profiles are paid for, not after, that the encoder's model or key is no good."""
        if self._has_tried_encoder or self._encoder.learns_from_texts:
            return
        writer = self._settings_of_llm.writer
        if any((prompt.token, writer, prompt.sha256) not in log for prompt in prompts):
            self._encoder.encode(["A text to try the encoder with."])
            self._has_tried_encoder = True

    def _ask_by_batch(self, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Collect what batches have answered and submit what none has; return whether nothing is running or left."""
        with ProfileLog(self._path(side)) as log:
            self._try_encoder(prompts, log)
            self._collect(log, side)
            n_left = self._submit(log, side, prompts)
        # Submitted once: what fails in a batch is not asked again and again.
        while requests_under_way(self._settings_of_llm, self._batches(side)):
            if not self._settings.wait:
                print("Run the same command again to collect, or with --wait.", flush=True)
                return False
            time.sleep(BATCH_POLL_SECONDS)
            with ProfileLog(self._path(side)) as log:
                n_left += self._collect(log, side)
        if n_left:
            print(f"{n_left} {side}s are left; the same command goes on with them.", flush=True)
        return not n_left

    def _collect(self, log: ProfileLog, side: Side) -> int:
        """Record what batches have answered; return how many prompts they did not come to."""
        if not self._batches(side).is_file():
            return 0
        collected = collect(log, self._settings_of_llm, self._batches(side), self._failures(side))
        print(collected, flush=True)
        return collected.n_released

    def _submit(self, log: ProfileLog, side: Side, prompts: Sequence[Prompt]) -> int:
        """Submit what is neither recorded nor running, nor, unless it is to be tried again, has failed.

        Returns:
            How many prompts are left, for the limit or the budget.
        """
        llm, failures = self._settings_of_llm, self._failures(side)
        failed = {} if self._settings.retry_failed else read_failures(failures)
        wanted = [
            prompt
            for prompt in prompts
            if (prompt.token, llm.writer, prompt.sha256) in log or not _is_failure_of(failed, prompt, llm.writer)
        ]
        submitted = submit(wanted, log, llm, self._batches(side), self._corpus.train_sha256, failures)
        print(submitted, flush=True)
        self._spend(submitted.n_submitted + bool(submitted.n_submitted), submitted.cost)  # one was asked at once
        return submitted.n_left

    @property
    def _settings_of_llm(self) -> LLMSettings:
        assert self._llm is not None, "a language model writes"
        return self._llm

    def _write_by_template(self, side: Side) -> dict[str, Profile]:
        profiles, without = self._by_template(side)
        _say_who_gets_none(side, without)
        n_written = 0
        with ProfileLog(self._path(side)) as log:
            current = log.current()
            for profile in profiles:
                if current.get(profile.token) != profile:
                    log.append(profile, sync=False)  # what a power cut takes is written again
                    n_written += 1
        print(f"{side}s: {len(profiles)} profiles by template, {n_written} of them new.", flush=True)
        return {profile.token: profile for profile in profiles}

    def _by_template(self, side: Side) -> tuple[list[Profile], dict[str, str]]:
        writer = TemplateWriter()
        write = writer.item_profiles if side == "item" else writer.user_profiles
        return write(self._corpus, self._settings.prompts)

    def _prompts(self, side: Side, item_profiles: Mapping[str, str]) -> tuple[list[Prompt], dict[str, str]]:
        if side == "item":
            return item_prompts(self._corpus, self._settings.prompts)
        return user_prompts(self._corpus, item_profiles, self._settings.prompts)

    def _path(self, side: Side) -> Path:
        return profiles_path(self._folder, self._corpus.dataset, side)

    def _batches(self, side: Side) -> Path:
        return self._folder / f"{self._corpus.dataset}.{side}prf.batch.json"

    def _failures(self, side: Side) -> Path:
        return failures_path(self._folder, self._corpus.dataset, side)


def _is_failure_of(failed: Mapping[str, Failure], prompt: Prompt, writer: str) -> bool:
    """Whether this writer was asked this very prompt in vain."""
    failure = failed.get(prompt.token)
    return failure is not None and (failure.prompt_sha256, failure.writer) == (prompt.sha256, writer)


def _say_who_gets_none(side: Side, without: Mapping[str, str]) -> None:
    for reason, number in Counter(without.values()).most_common():
        tokens = [token for token, found in without.items() if found == reason]
        print(
            f"{side}s without a profile: {number} with {reason}, e.g. {', '.join(map(repr, tokens[:3]))}.", flush=True
        )


# ---------------------------------------------------------------------- the command line


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``recbole-rlmrec build-semantics``."""
    _add_dataset_arguments(parser)
    parser.add_argument("--writer", choices=WRITERS, default="template", help="who writes the profiles (%(default)s)")
    parser.add_argument("--encoder", choices=ENCODERS, default="lsa", help="what encodes them (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print counts, tokens and cost, and do nothing")
    parser.add_argument("--float16", action="store_true", help="store vectors in half precision")
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors as long as the encoder makes them")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace embeddings of other profiles or of another encoder"
    )
    group = parser.add_argument_group("prompts")
    group.add_argument("--token-budget", type=int, metavar="N", help="tokens of a prompt's text at most (2000)")
    group.add_argument("--reviews-per-item", type=int, metavar="N", help="reviews told of an item at most (5)")
    group.add_argument("--interactions-per-user", type=int, metavar="N", help="of a user at most (10)")
    group.add_argument("--prompt-seed", type=int, metavar="N", help="which of them are told (2023)")
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
    group.add_argument("--limit", type=int, metavar="N", help="profiles to ask for in this run, at most")
    group.add_argument("--budget", type=float, metavar="USD", help="what this run may cost; needs the prices")
    group.add_argument("--input-price", type=float, metavar="USD", help="per million tokens sent")
    group.add_argument("--output-price", type=float, metavar="USD", help="per million tokens written")
    group.add_argument("--batch", action="store_true", help="ask by the Batch API, at half the price, in hours")
    group.add_argument("--wait", action="store_true", help="with --batch: wait until the batches end")
    group.add_argument("--retry-failed", action="store_true", help="with --batch: submit again what failed before")
    group = parser.add_argument_group("encoder")
    group.add_argument("--encoder-model", metavar="MODEL", help="its name, or a folder (sentence-transformers)")
    group.add_argument("--encoder-base-url", metavar="URL", help="of an OpenAI-compatible server (OpenAI's)")
    group.add_argument("--encoder-prompt", metavar="TEXT", help="instruction before each text")
    group.add_argument("--dimension", type=int, metavar="D", help="length of a vector (lsa: 256)")
    group.add_argument("--device", help="of sentence-transformers, such as cpu or cuda:0")
    group.add_argument("--batch-size", type=int, metavar="N", help="texts encoded at a time (64)")


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``recbole-rlmrec check``."""
    _add_dataset_arguments(parser)


def run_build(known: argparse.Namespace, command_line: Mapping[str, Any]) -> int:
    """Run ``recbole-rlmrec build-semantics``; 1 says that something leaked or that profiles are still to come."""
    if known.writer != "llm":
        given = [name for name in _LLM_ARGUMENTS if getattr(known, name) is not None]
        if given:
            raise SettingError(
                f"--{given[0].replace('_', '-')} is for --writer llm; the writer '{known.writer}' asks nobody."
            )
    own = {name: getattr(known, name) for name in ("writer", "encoder", "batch", "wait", "retry_failed", "dry_run")}
    config = _config(known, command_line)
    settings = BuildSettings(
        **own,
        prompts=_given(PromptSettings, known, {"seed": "prompt_seed"}, domain=config["text_domain"]),
        llm=None if known.llm is None else _given(LLMSettings, known, {"base_url": "llm_base_url"}, model=known.llm),
        encoding=_given(
            EncoderSettings,
            known,
            {"model": "encoder_model", "base_url": "encoder_base_url", "prompt": "encoder_prompt"},
            without=("concurrency", "timeout", "max_retries"),
        ),
        float16=known.float16,
        normalize=not known.no_normalize,
        overwrite=known.overwrite,
    )
    report = build_semantics(config, settings)
    if report is None:
        return 0 if settings.dry_run else 1
    print(report)
    return int(report.has_leak)


def run_check(known: argparse.Namespace, command_line: Mapping[str, Any]) -> int:
    """Run ``recbole-rlmrec check``; 1 says that something leaked."""
    report = check(_config(known, command_line))
    print(report)
    return int(report.has_leak)


def _add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", "-d", required=True, help="such as ml-100k")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")


def _config(known: argparse.Namespace, command_line: Mapping[str, Any]) -> Any:
    """Configure as a training would, so that the split is the same; the model does not matter to it."""
    from recbole_rlmrec.config import RLMRecConfig

    return RLMRecConfig("BPR", known.dataset, shlex.split(known.config_files), command_line=command_line)


def _given(
    kind: type[_SettingsT],
    known: argparse.Namespace,
    arguments: Mapping[str, str],
    without: Sequence[str] = (),
    **more: Any,
) -> _SettingsT:
    """Make a component's settings of the arguments that were given; the others keep its defaults."""
    values = dict(more)
    for entry in fields(kind):  # type: ignore[arg-type]
        value = None if entry.name in without else getattr(known, arguments.get(entry.name, entry.name), None)
        if value is not None and entry.name not in more:
            values[entry.name] = value
    return kind(**values)
