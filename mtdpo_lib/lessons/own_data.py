"""A user's own pairs in a file of JSON lines: seen as a page of masks, and learnt from.

    python -m mtdpo_lib masks PAIRS.jsonl --model FOLDER
    python -m mtdpo_lib train PAIRS.jsonl --model FOLDER --out ADAPTER

A line that cannot be learnt from is refused with its number and the reason. See: README, "Your own data".
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import torch

from mtdpo_lib.chat import MessageFormat, Role, RoleTokens, to_html, to_text
from mtdpo_lib.chat.show import LEGEND
from mtdpo_lib.common.files import CorruptData, whole, write_json
from mtdpo_lib.common.hub import look_up
from mtdpo_lib.common.progress import Progress, say
from mtdpo_lib.common.stages import Product
from mtdpo_lib.experiment.processes import launch
from mtdpo_lib.models import MissingModel, Policy, train_tokenizer
from mtdpo_lib.models.bases import read_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles import Profile, setting_values
from mtdpo_lib.results import markdown_table
from mtdpo_lib.rollout import Trajectory
from mtdpo_lib.train import PreferenceJob, train_preference
from mtdpo_lib.train.data import PAIR, SIDES, encode_pair, longer_side
from mtdpo_lib.train.losses import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Beginnings of the names of those that are used here, as they are kept beside an adapter.
SETTINGS = ("preference.", "pairs.max_tokens", "model.quantization", "model.dtype", "model.lora")


@dataclass
class OwnPairs:
    """What a file of pairs holds, by line number, from 1.

    Attributes:
        form: what it was read with.
        kept: ids, roles and mask of both sides (`encode_pair`).
        longer: the same of pairs over the limit, which are left out.
        refused: why a line cannot be learnt from.
    """

    form: MessageFormat
    kept: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    longer: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def chat_tokenizer(model: str, template: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder or hub name, with its own chat template or the one in a file.

    Without a model its tokens are bytes, but for the control tokens that the template names: roles are told alike.

    Raises:
        MissingModel: no tokenizer or no template there, or neither is asked for.
    """
    if not (model or template):
        raise MissingModel(
            "Give --model the folder of a chat model, or --template a file with its chat template."
        )
    source: Any = template or model
    try:
        text = template.read_text("utf8") if template else ""
        source = model or template
        if model and not Path(model).is_dir():
            look_up(model, "tokenizer_config.json")
        tokenizer = read_tokenizer(model) if model else _bytes(text)
    except Exception as error:  # of many classes, as the hub's and the tokenizers' code raise them
        raise MissingModel(
            f"{source} cannot be read ({type(error).__name__}): give --model the folder of a chat model or its name on the "
            "hub, and --template a text file, if any."
        ) from error
    if template:
        tokenizer.chat_template, tokenizer.name_or_path = text, str(template)  # which is the name in errors
    return tokenizer


def _bytes(template: str) -> PreTrainedTokenizerBase:
    """A token for each byte, and one for each mark that a template sets, such as ``<|im_end|>``.

    ``<think>`` is no such mark where the template closes it with ``</think>``: a policy writes it.
    """
    tokenizer = train_tokenizer([], 0)
    marks = dict.fromkeys(re.findall(r"<[^<>/\s'\"]+>", template))
    single = [mark for mark in marks if f"</{mark[1:]}" not in template]
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer.add_special_tokens({**ends, "additional_special_tokens": single})
    return tokenizer


def read_pairs(file: Path, form: MessageFormat, method: str, max_tokens: int | None) -> OwnPairs:
    """The pairs in a file, one a line; a line that cannot be learnt from is refused with the reason.

    Args:
        file: of JSON objects as `pairs_from_messages` takes them; blank lines are passed over.
        form: reads conversations with a chat template.
        method: decides which tokens are scored; RAFT's loss never sees a rejected side.
        max_tokens: a pair with a longer side is left out; None keeps all.

    Raises:
        CorruptData: the file cannot be read, or holds no pair.
    """
    found, progress = OwnPairs(form), Progress("Reading", "lines")
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise CorruptData(f"{file} cannot be read ({error.strerror}): write {PAIR} on its lines.") from error
    for number, line in enumerate(lines, 1):
        progress(number, len(lines))
        if not line.strip():
            continue
        try:
            pair = encode_pair(form, _row(line, number), method, f"Line {number}")
        except ValueError as error:
            found.refused[number] = str(error)
            continue
        if METHODS[method][0] == "right":
            pair["rejected_mask"] = [0] * len(pair["rejected_ids"])
        is_longer = max_tokens is not None and longer_side(pair) > max_tokens
        (found.longer if is_longer else found.kept)[number] = pair
    if not (found.kept or found.longer or found.refused):
        raise CorruptData(f"{file} holds no pair: write {PAIR} on each line.")
    return found


def _row(line: bytes, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise ValueError(f"Line {number} is not JSON in UTF-8 ({kind}): write {PAIR} on it.") from error


# --- Seen ---


def totals(found: OwnPairs) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: how many tokens of each side every role wrote, and how many of them the loss sees."""
    written, scored = Counter(), Counter()
    for pair in found.kept.values():
        for side in SIDES:
            written.update((side, role) for role in pair[f"{side}_roles"])
            seen = zip(pair[f"{side}_roles"], pair[f"{side}_mask"], strict=True)
            scored.update((side, role) for role, mask in seen if mask)
    counts = [[each[side, role] for side in SIDES for each in (written, scored)] for role in Role]
    named = zip([role.name.lower() for role in Role] + ["all"], [*counts, map(sum, zip(*counts))])
    head = ["tokens written by", "chosen", "chosen, in the loss", "rejected", "rejected, in the loss"]
    return head, [[name, *(f"{count:,}" for count in row)] for name, row in named]


def write_masks(found: OwnPairs, out: Path, show: int, **about: Any) -> list[Path]:
    """Who wrote what and what the loss sees, as a page and as plain text: ``out.html`` and ``out.txt``.

    Args:
        found: from `read_pairs`.
        out: a path; its ending is replaced.
        show: so many pairs in full; totals and refusals are of all.
        about: for the head: the names of the file, the method and the template, and the unit of tokens.
    """
    tokenizer, head_and_rows = found.form.tokenizer, totals(found)
    pairs = [
        (number, [_shown(pair, side, tokenizer) for side in SIDES])
        for number, pair in islice(found.kept.items(), show)
    ]
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(("html.jinja",)),
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    files = [out.with_suffix(ending) for ending in (".html", ".txt")]
    for file in files:
        page = pages.get_template(f"masks{file.suffix}.jinja").render(
            found=found, pairs=pairs, totals=head_and_rows, table=markdown_table(*head_and_rows), legend=LEGEND,
            about=about,
        )  # fmt: skip
        with whole(file) as draft:
            draft.write_text(page, encoding="utf8", errors="backslashreplace")
    return files


def _shown(pair: dict[str, list[int]], side: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """One side of a pair for the templates."""
    tokens, mask = RoleTokens(pair[f"{side}_ids"], pair[f"{side}_roles"]), pair[f"{side}_mask"]
    return {
        "name": side, "tokens": len(tokens), "scored": sum(mask),
        "html": to_html(tokens, tokenizer, mask, legend=False), "text": to_text(tokens, tokenizer, mask),
    }  # fmt: skip


# --- Learnt from ---


def train(
    found: OwnPairs, file: Path, model: str, out: Path, profile: Profile, seed: int
) -> dict[str, float]:
    """An adapter for `model`, trained by the profile's method on the pairs that `read_pairs` found in `file`.

    Returns:
        The last row of the log, all of which lies beside the adapter in ``training.json``.

    Raises:
        CorruptData: a line is refused, or no pair is left.
        MissingModel: the model's weights cannot be had.
        ValueError: too few pairs for the method, or a batch that the processes cannot share.
    """
    for sentence in found.refused.values():
        raise CorruptData(
            f"{file}: {sentence} The command `masks` shows all such lines: {len(found.refused)}."
        )
    if not found.kept:
        raise CorruptData(
            f"{file}: all pairs are longer than {profile.pairs.max_tokens} tokens: raise --max-tokens."
        )
    pairs = [
        Pair(*(_trajectory(number, pair, side) for side in SIDES)) for number, pair in found.kept.items()
    ]
    settings, policy = profile.preference, Policy("model", Product("model", "", Path(model)))
    batch = min(settings.batch_size, len(pairs))
    if rest := len(pairs) % batch:
        say(
            f"A pass has {len(pairs) // batch} steps of {batch} pairs: {rest} fill no batch (see --batch-size)."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as draft:
        job = PreferenceJob(
            draft, pairs, policy, policy, settings, profile.model, seed, right=[pair.chosen for pair in pairs]
        )
        gpus = torch.cuda.device_count()
        train = functools.partial(train_preference, job)
        log = launch(train, gpus, "Preference training") if gpus > 1 else train()
        (adapter,) = draft.glob("step-*")
        for part in adapter.iterdir():
            part.rename(draft / part.name)
        adapter.rmdir()
        used = {name: value for name, value in setting_values(profile).items() if name.startswith(SETTINGS)}
        about = {"pairs": str(file), "model": model, "seed": seed, "settings": used, "log": log}
        write_json(draft / "training.json", about)
    return log[-1]


def _trajectory(number: int, pair: dict[str, list[int]], side: str) -> Trajectory:
    """One side as training takes it: its tokens, and a verdict by its place."""
    ids, roles = pair[f"{side}_ids"], pair[f"{side}_roles"]
    return Trajectory(
        f"line {number}", "own", "", "", "", 0, ids, roles, [], None, side == "chosen", "answer"
    )
