"""Preference steps a second and peak memory: TRL's defaults, TRL as well tuned as we could, and the fast step.

    python tests/benchmarks/preference_step.py            # both cores, a few minutes
    python tests/benchmarks/preference_step.py --pairs 2 --rounds 3
    python tests/benchmarks/preference_step.py --model tiny --pairs 12 --precision float32

One run, one machine, arms interleaved round by round, so that whatever else the machine does hits all alike. Every arm
trains the same LoRA adapter of the same Llama (the shape of SmolLM2-135M or of the tiny base, random weights) on the same
pairs with the right mask:

* ``default``: `DPOTrainer` with `DPOConfig`'s defaults (gradient checkpointing, bfloat16 autocast, reference in every step);
* ``tuned``: `DPOTrainer` without checkpointing, pairs sorted by length, the reference's log-probabilities precomputed and
  free of charge, in the quickest of three precisions and two batch shapes (tried at the start of the run);
* ``fast``: `TrajectoryDPOTrainer(fast=True)`, diagnostics on; ``fast, cached`` with the reference's numbers cached, the
  counterpart of ``tuned``. Both in tuned's precision. Memory is also measured for the ``policy alone``, which is given the
  reference's numbers and never holds the reference.

Assumed lengths (multi-turn math with a tool): a prompt of 300 to 400 tokens, answers of 200 to 300, of which the share
--scored (0.52) is the policy's own and the rest the tool's output and template. --prompt, --answer and --scored change them:
the gain grows with the prompt's part of a pair and falls, slowly, with the scored share.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

THREADS = os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402
from trl.kernels import ChunkedLogProbFunction  # noqa: E402
from trl.trainer.utils import FusedCausalLMOutput  # noqa: E402

from mtdpo_lib.chat.roles import Role  # noqa: E402
from mtdpo_lib.models import quiet_libraries  # noqa: E402
from mtdpo_lib.train import TrajectoryDPOTrainer, TrajectoryPairCollator  # noqa: E402
from mtdpo_lib.train.fast import forward, merged_lora, shared_prompt  # noqa: E402
from mtdpo_lib.train.loop import CHECKPOINTING  # noqa: E402

SHAPES = {
    "SmolLM2-135M": {
        "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "tie_word_embeddings": True, "pad_token_id": 0,
    },
    "tiny": {
        "vocab_size": 697, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 4, "intermediate_size": 384, "tie_word_embeddings": True, "pad_token_id": 0,
    },
}  # fmt: skip
SHAPE = dict(SHAPES["SmolLM2-135M"])  # of this process
PRECISIONS = {
    "float32": (torch.float32, False),
    "autocast": (torch.float32, True),
    "bfloat16": (torch.bfloat16, True),
}


# --- Data ---


def answer(draw: random.Random, length: int, scored: float) -> tuple[list[int], list[int]]:
    """Ids and roles of an answer: three turns of the policy with the tool's output between them."""
    ids, roles = [draw.randrange(3, SHAPE["vocab_size"]) for _ in range(length)], []
    own, tool = length * scored / 3, length * (1 - scored) / 2
    for turn in range(3):
        roles += [Role.ASSISTANT] * round(own) + ([Role.TOOL] * round(tool) if turn < 2 else [])
    return ids, [int(role) for role in (roles + [Role.ASSISTANT] * length)[:length]]


def make_pairs(options: argparse.Namespace) -> Dataset:
    """Pairs as `preference_dataset` writes them, of random tokens."""
    draw, rows = random.Random(options.seed), []
    for _ in range(options.pairs):
        prompt = [draw.randrange(3, SHAPE["vocab_size"]) for _ in range(draw.randint(*options.prompt))]
        row = {}
        for side in ("chosen", "rejected"):
            ids, roles = answer(draw, draw.randint(*options.answer), options.scored)
            row[f"{side}_ids"], row[f"{side}_roles"] = prompt + ids, [int(Role.PROMPT)] * len(prompt) + roles
            row[f"{side}_mask"] = [int(role == Role.ASSISTANT) for role in row[f"{side}_roles"]]
        rows.append(row)
    return Dataset.from_list(rows)


def tokenizer() -> PreTrainedTokenizerFast:
    """Trainers want one; nothing is tokenised."""
    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")


# --- Arms ---


@dataclass
class Arm:
    """One way to take a step."""

    fast: bool
    precision: str
    checkpointing: bool = False
    reference: bool = True  # computed in the step; else known
    together: int = 0  # pairs in one forward; 0: all
    alone: bool = False  # the policy without any reference: neither its weights nor its pass

    def build(self, pairs: Dataset, device: str) -> DPOTrainer:
        dtype, autocast = PRECISIONS[self.precision]
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype)
        model = get_peft_model(
            model, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        arguments = DPOConfig(
            output_dir="unused", max_length=None, bf16=autocast, **{CHECKPOINTING: self.checkpointing},
            use_cpu=device == "cpu", report_to="none", per_device_train_batch_size=len(pairs),
            dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        common = {"model": model, "args": arguments, "processing_class": tokenizer(), "train_dataset": pairs}
        if self.fast:
            reference = "base" if self.alone else "initial"
            trainer = TrajectoryDPOTrainer(
                **common, fast=True, rows_at_once=self.together, reference=reference
            )
            if self.alone:
                trainer._forward._remembered = given_reference
            elif not self.reference:
                trainer._forward.cache = shared_cache(trainer)
        else:
            trainer = Stock(**common, data_collator=TrajectoryPairCollator(0))
            trainer.precompute_ref_logps = not self.reference
        with torch.no_grad():  # away from the start, where half of LoRA has no gradient
            for name, weight in trainer.model.named_parameters():
                if ".default." in name:
                    weight.add_(0.01 * torch.randn_like(weight))
        trainer.agreement = 0.0
        trainer.current_gradient_accumulation_steps = 1
        if self.checkpointing:
            getattr(trainer.model, f"{CHECKPOINTING}_enable")()
        trainer.optimizer = torch.optim.AdamW(
            [w for w in trainer.model.parameters() if w.requires_grad], 1e-5
        )
        return trainer

    def step(self, trainer: DPOTrainer, pairs: Dataset) -> None:
        """One optimiser step on all pairs."""
        rows = sorted(pairs, key=lambda row: len(row["chosen_ids"]) + len(row["rejected_ids"]))
        size = len(rows) if self.fast or not self.together else self.together
        trainer.current_gradient_accumulation_steps = len(rows) / size
        for start in range(0, len(rows), size):
            batch = trainer.data_collator(rows[start : start + size])
            if not self.fast:
                batch.pop("roles")
                if not self.reference:
                    known = torch.zeros(len(batch["input_ids"]) // 2)
                    batch |= {"ref_chosen_logps": known - 1000, "ref_rejected_logps": known - 1000}
            trainer.training_step(trainer.model, batch)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        trainer._metrics["train"].clear()


class Stock(DPOTrainer):
    """TRL's trainer on ready-made columns; nothing else is changed."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


def shared_cache(trainer: TrajectoryDPOTrainer):
    from mtdpo_lib.train.reference import ReferenceCache

    return ReferenceCache(trainer.model)


def given_reference(*_, labels: torch.Tensor, **__) -> FusedCausalLMOutput:
    return FusedCausalLMOutput(log_probs=torch.where(labels[:, 1:] == -100, 0.0, -10.0))


def seconds(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


# --- Each idea alone ---


def sliced(whole: torch.Tensor, lengths: list[int], dim: int = 0) -> list[torch.Tensor]:
    """What `Tensor.split` gives, each part with a gradient of its own, as large as the whole."""
    starts = itertools.accumulate(lengths, initial=0)
    return [whole.narrow(dim, start, length) for start, length in zip(starts, lengths)]


def fused_attention(query, key, value, mask, scaling):
    """Torch's, as for every other precision."""
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )


@contextlib.contextmanager
def ladder(share: bool, head: str, split: bool, factors: bool, products: bool) -> Iterator[None]:
    """The fast step with some of its ideas taken away.

    Args:
        share: prompts shared; else every row is whole (but never padded).
        head: "everywhere" (TRL's, on all tokens), "scored" (TRL's, on scored tokens) or "one pass" (ours).
        split: the packed row is split once; else every part is a slice of its own.
        factors: those of a small LoRA layer are multiplied first.
        products: attention in bfloat16 by matrix products; else torch's fused one.
    """
    pack, scored_head, scored_forward = shared_prompt.pack, shared_prompt.scored_head, forward.scored_forward

    def trl_head(model, hidden, targets):
        weight = model.get_output_embeddings().weight
        log_probs, entropy, _, mean, top = ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, 1.0, 32768, None, 1.0, shared_prompt.STATISTICS[1:]
        )
        return dict(zip(shared_prompt.STATISTICS, (log_probs, entropy, mean, top), strict=True))

    def everywhere(model, input_ids, labels, watched=None):
        tokens = input_ids.masked_fill(input_ids == 0, -100)
        tokens[:, 0] = -100
        found, _ = scored_forward(model, input_ids, tokens)
        return {name: value.masked_fill(labels[:, 1:] == -100, 0) for name, value in found.items()}, None

    shared_prompt.pack = lambda ids, labels: pack(ids, labels, share)
    if head != "one pass":
        shared_prompt.scored_head = trl_head
    if head == "everywhere":
        forward.scored_forward = everywhere
    most = merged_lora.MOST_WEIGHTS if factors else 0
    attend = shared_prompt._attend_by_products if products else fused_attention
    cut = torch.Tensor.split if split else sliced
    try:
        with (
            patch.object(merged_lora, "MOST_WEIGHTS", most),
            patch.object(shared_prompt, "_attend_by_products", attend),
            patch.object(torch.Tensor, "split", cut),
        ):
            yield
    finally:
        shared_prompt.pack, shared_prompt.scored_head, forward.scored_forward = (
            pack,
            scored_head,
            scored_forward,
        )


LADDER = {  # name: (prompts shared, head, split once, factors first, attention by products)
    "no padding": (False, "everywhere", False, False, False),
    "and the prompt once": (True, "everywhere", False, False, False),
    "and the head where scored": (True, "scored", False, False, False),
    "and its gradient in one pass": (True, "one pass", False, False, False),
    "and one split": (True, "one pass", True, False, False),
    "and LoRA's factors first": (True, "one pass", True, True, False),
    "and attention by products": (True, "one pass", True, True, True),
}


# --- Equality ---


def equality(pairs: Dataset, device: str) -> dict[str, float]:
    """In float32: largest relative difference of sequence log-probabilities, and cosine of gradients, fast against TRL."""
    few, found = pairs.select([0]), []
    for fast in (False, True):
        arm = Arm(fast, "float32")
        trainer = arm.build(few, device)
        batch = trainer.data_collator(list(few))
        if not fast:
            batch.pop("roles")
        kept = []
        handle = trainer.model.register_forward_hook(
            lambda m, a, out, kept=kept: kept.append(out.log_probs.detach())
        )
        trainer.training_step(trainer.model, batch)
        handle.remove()
        gradient = torch.cat([w.grad.flatten() for w in trainer.model.parameters() if w.grad is not None])
        found.append((kept[0].double().sum(1), gradient.double()))
    (stock, slope), (ours, own) = found
    return {
        "log_probability": ((ours - stock).abs() / stock.abs()).max().item(),
        "gradient_cosine": torch.cosine_similarity(slope, own, dim=0).item(),
    }


# --- The run ---


def peak_memory(arm: Arm, options: argparse.Namespace) -> float:
    """MiB at the peak of one step in a fresh process."""
    command = [sys.executable, __file__, "--memory", json.dumps(vars(arm)), "--pairs", str(options.pairs)]
    command += ["--model", options.model]
    command += ["--scored", str(options.scored), "--seed", str(options.seed)]
    command += ["--prompt", *map(str, options.prompt), "--answer", *map(str, options.answer)]
    # What is freed goes back to the system at once: otherwise the peak is what the allocator happened to keep, and the same
    # step takes a tenth more or less from one process to the next.
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=given_back)
    return float(done.stdout.strip().splitlines()[-1])


def memory_of_this_process(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin at what the process that started this one held
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tune(pairs: Dataset, device: str) -> Arm:
    """The quickest of TRL's settings without checkpointing, each tried twice; the second time counts."""
    times = {}
    for precision in PRECISIONS:
        for together in (0, 1):
            arm = Arm(False, precision, reference=False, together=together)
            trainer = arm.build(pairs, device)
            arm.step(trainer, pairs)
            times[precision, together] = seconds(lambda a=arm, t=trainer: a.step(t, pairs), device)
            print(
                f"  TRL in {precision:<9} {together or 'all'} pairs at a time: {times[precision, together]:6.2f} s",
                flush=True,
            )
            del trainer
    precision, together = min(times, key=times.get)
    return Arm(False, precision, reference=False, together=together)


def interleaved(
    arms: dict[str, Arm], pairs: Dataset, rounds: int, device: str, patches=None
) -> dict[str, list[float]]:
    """Seconds of one step of each arm in each round, after one round that does not count."""
    patches = patches or {}
    trainers = {name: arm.build(pairs, device) for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            with patches.get(name, contextlib.nullcontext)():
                spent = seconds(lambda a=arm, t=trainers[name]: a.step(t, pairs), device)
            if number:
                times[name].append(spent)
        print(
            f"  round {number}: " + ", ".join(f"{n} {t[-1]:.2f} s" for n, t in times.items() if t), flush=True
        )
    return times


def spread(slow: list[float], quick: list[float]) -> list[float]:
    """Median, lowest and highest ratio over rounds."""
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    return [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))]


PARTS = ("equality", "tune", "steps", "ladder", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="SmolLM2-135M")
    parser.add_argument("--pairs", type=int, default=4, help="pairs in a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scored", type=float, default=0.52, help="share of an answer that the policy wrote")
    parser.add_argument(
        "--prompt", type=int, nargs=2, default=(300, 400), help="fewest and most tokens of a prompt"
    )
    parser.add_argument(
        "--answer", type=int, nargs=2, default=(200, 300), help="fewest and most tokens of an answer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=PRECISIONS, help="of tuned and fast; default: try all")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; all by default"
    )
    parser.add_argument(
        "--ideas", type=int, default=len(LADDER), help="only the last so many of the ladder (all)"
    )
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    SHAPE.update(SHAPES[options.model])
    torch.set_num_threads(int(THREADS))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = make_pairs(options)
    if options.memory:
        arm = Arm(**json.loads(options.memory))
        arm.step(arm.build(pairs, device), pairs)
        print(memory_of_this_process(device))
        return
    tokens = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in pairs]
    print(f"{options.pairs} pairs of {min(tokens)} to {max(tokens)} tokens, {options.scored:.0%} of answers scored, "
          f"{THREADS} threads, {device}")  # fmt: skip
    result = {
        "model": options.model, "device": device, "threads": int(THREADS), "pairs": options.pairs,
        "rounds": options.rounds, "scored": options.scored,
    }  # fmt: skip
    if "equality" in options.parts:
        result["equality"] = equality(pairs, device)
        print(f"equality in float32: {result['equality']}", flush=True)
    tuned = Arm(False, options.precision or "bfloat16", reference=False, together=1)
    if "tune" in options.parts and options.precision is None:
        tuned = tune(pairs, device)
    result["precision"] = tuned.precision
    together = 1 if device == "cpu" and options.model != "tiny" else 0
    cached = Arm(True, tuned.precision, reference=False, together=together)
    arms = {
        "default": Arm(False, "autocast", checkpointing=True),
        "tuned": tuned,
        "fast": replace(cached, reference=True),
        "fast, cached": cached,
        "tuned, with reference": replace(tuned, reference=True),
    }
    if "steps" in options.parts:
        times = interleaved(arms, pairs, options.rounds, device)
        result |= {
            "ratio_default": spread(times["default"], times["fast"]),
            "ratio_tuned": spread(times["tuned"], times["fast, cached"]),
            "ratio_tuned_with_reference": spread(times["tuned, with reference"], times["fast"]),
            "ratio_default_cached": spread(times["default"], times["fast, cached"]),
            "pairs_per_second": {n: round(options.pairs / statistics.median(t), 4) for n, t in times.items()},
            "quickest_step_seconds": {
                n: round(min(t), 3) for n, t in times.items()
            },  # least disturbed by others
        }
    if "ladder" in options.parts:
        rungs = [("tuned", tuned), *((name, cached) for name in LADDER)]
        names = dict(rungs[-options.ideas - 1 :])
        patches = {name: functools.partial(ladder, *setting) for name, setting in LADDER.items()}
        steps = interleaved(names, pairs, max(options.rounds // 2, 2), device, patches)
        result["gain_of_each_idea"] = {b: spread(steps[a], steps[b]) for a, b in itertools.pairwise(names)}
    if "memory" in options.parts:
        arms["policy alone"] = replace(cached, alone=True)
        peaks = {n: round(peak_memory(arm, options)) for n, arm in arms.items()}
        result["peak_memory_mib"] = peaks
        result["memory_for_the_reference"] = round(peaks["fast"] / peaks["policy alone"] - 1, 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
