"""The adaptive margin: term C of eq. (13), which a random tool adds to a trajectory's utility.

    C(tau) = sum_h [V(s_{h+1}) - E_{o ~ P(. | s_h, a_h)} V(s_h, a_h, o)]

is what the tool's chance added to a trajectory. The paper names it and leaves it out, since it is zero for an interpreter.
Here V is linear, V(s) = w . phi(s): phi(s) is the starting policy's last hidden state where the next turn begins, and the
expectation is a mean over K further answers of the tool. So C(tau) = w . c(tau), with one fixed vector c(tau) for each
trajectory (`margin_features`), and w is learned along with the policy, from the same pairs (`AdaptiveMarginTrainer`).

**Paper:** eq. (13) and the remark after it; on tables: `mtdpo_lib.lessons.theory.fit_with_learned_v`.

See: notebook 01_theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mtdpo_lib.chat import ChatFormat, Role
from mtdpo_lib.rollout import Trajectory
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.sandbox.effects import disturb
from mtdpo_lib.train.data import padded
from mtdpo_lib.train.loop import base_of
from mtdpo_lib.train.trainers import Batch, TrajectoryDPOTrainer

OBSERVED = (Role.TOOL, Role.TEMPLATE)
VALUE_FILE = "value_head.pt"
# Of w, which starts at zero: within the few dozen steps of an iteration Adam can bring each of its hundred or so weights to
# about 0.3, so that w . c can reach the unit of the utility. An adapter's rate cannot.
VALUE_LEARNING_RATE = 1e-2


# --- c(tau) ---


def observations(roles: Sequence[int]) -> list[tuple[int, int]]:
    """Where each observation stands that a further turn follows: [start, end) with its template tokens.

    >>> prompt, own, tool, header = Role.PROMPT, Role.ASSISTANT, Role.TOOL, Role.TEMPLATE
    >>> observations([prompt, own, own, header, tool, header, own])
    [(3, 6)]
    """
    spans, start = [], None
    for position, role in enumerate(roles):
        if role in OBSERVED and start is None:
            start = position
        elif role == Role.ASSISTANT and start is not None:
            spans.append((start, position))
            start = None
    return spans


def ask_again(
    trajectories: Sequence[Trajectory], pool: SandboxPool, draws: int, noise: float, seed: int
) -> list[list[list[str]]]:
    """K more answers of the tool for every observation of every trajectory, [N][turns][K].

    Each trajectory's programs are run again in a new session. An answer to the same programs can differ only where the tool
    is random.

    Args:
        trajectories: with the programs they ran.
        pool: the tool.
        draws: K.
        noise: as the trajectories were sampled with (`RolloutSettings.tool_noise`).
        seed: of the noise.

    >>> from mtdpo_lib.profiles.sections import SandboxSettings
    >>> from mtdpo_lib.rollout import Turn
    >>> turns = [Turn("Multiply.", "print(6 * 7)", "42"), Turn("The answer is 42.")]
    >>> trajectory = Trajectory("p", "s", "q", "42", "sft", 0, [], [], turns, "42", True, "answer")
    >>> with SandboxPool(SandboxSettings()) as pool:
    ...     ask_again([trajectory], pool, draws=2, noise=0.0, seed=0)
    [[['42', '42']]]
    """
    answers = []
    for number, trajectory in enumerate(trajectories):
        programs = [turn.code or "" for turn in trajectory.turns if turn.output is not None]
        with pool.session() as session:
            clean = [session.run(program) for program in programs]
        answers.append(
            [
                [disturb(result.text, noise, seed, "again", number, h, k) for k in range(draws)]
                if result.error is None
                else [result.text] * draws
                for h, result in enumerate(clean)
            ]
        )
    return answers


@torch.no_grad()
def margin_features(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
    answers: Sequence[Sequence[Sequence[str]]],
    rows_at_once: int = 64,
) -> Tensor:
    """c(tau) of each trajectory, [N, D], in units of phi; exactly zero where every further answer is the one it saw.

    Args:
        model: the policy that training starts from; its last hidden states are phi.
        tokenizer: its own.
        trajectories: N of them.
        answers: from `ask_again`.
        rows_at_once: states in memory at a time.

    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> from mtdpo_lib.rollout import Turn
    >>> tokenizer = train_tokenizer(["print(6 * 7)"], 300)
    >>> model, chat = tiny_model(get_profile("smoke").model, tokenizer, 64, seed=0), ChatFormat(tokenizer)
    >>> tokens = chat.prompt("6 * 7?") + chat.assistant("print(6 * 7)") + chat.tool("42") + chat.assistant("42")
    >>> turns = [Turn("print(6 * 7)", "print(6 * 7)", "42"), Turn("42")]
    >>> seen = Trajectory("p", "s", "6 * 7?", "42", "sft", 0, tokens.ids, tokens.roles, turns, "42", True, "answer")
    >>> sure, noisy = margin_features(model, tokenizer, [seen, seen], [[["42", "42"]], [["42", "43"]]])
    >>> bool(sure.any()), bool(noisy.any())  # only a tool that may answer otherwise has a margin
    (False, True)
    """
    chat = ChatFormat(tokenizer)
    states: list[list[int]] = []  # token ids up to where the next turn begins
    weights: list[tuple[int, float]] = []  # whose sum they enter, and with what weight
    for number, (trajectory, asked) in enumerate(zip(trajectories, answers, strict=True)):
        for (start, end), texts in zip(observations(trajectory.roles), asked, strict=False):
            seen, head = trajectory.ids[:end], trajectory.ids[:start]
            others = [state for text in texts if (state := head + chat.tool(text).ids) != seen]
            if others:
                states += [seen, *others]
                share = 1 / len(texts)
                weights += [(number, share * len(others)), *[(number, -share)] * len(others)]
    features = _last_states(model.eval(), states, tokenizer.pad_token_id, rows_at_once)
    found = torch.zeros(len(trajectories), model.config.hidden_size)
    for (number, weight), feature in zip(weights, features, strict=True):
        found[number] += weight * feature
    return found


def _last_states(
    model: PreTrainedModel | PeftModel, states: Sequence[Sequence[int]], pad: int, rows_at_once: int
) -> list[Tensor]:
    """The last hidden state at the last token of each row, [D] each; equal rows are computed once."""
    base = base_of(model)
    different = sorted(set(map(tuple, states)), key=len)
    known: dict[tuple[int, ...], Tensor] = {}
    for first in range(0, len(different), rows_at_once):
        rows = different[first : first + rows_at_once]
        ids = padded(rows, pad).to(base.device)
        mask = padded([[1] * len(row) for row in rows], 0).to(base.device)
        hidden = base.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for row, states_of_row in zip(rows, hidden, strict=True):
            known[row] = states_of_row[len(row) - 1].float().cpu()
    return [known[tuple(state)] for state in states]


# --- The loss ---


class AdaptiveMarginTrainer(TrajectoryDPOTrainer):
    """M-DPO with the third term of eq. (13): -log sigmoid(eta (Delta_w - Delta_l) + w . (c_w - c_l)), which learns w too.

    The data set has the columns ``chosen_margin_features`` and ``rejected_margin_features``, the vectors c(tau). The log has
    ``luck``, the mean of |w . (c_w - c_l)|, in the unit of the utility.

    Args:
        value_learning_rate: of w; None: the policy's.

    Attributes:
        value_head: w, [D], zero at the start.

    >>> import tempfile
    >>> from datasets import Dataset
    >>> from peft import LoraConfig
    >>> from trl import DPOConfig
    >>> from mtdpo_lib.models import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles import ModelSettings
    >>> from mtdpo_lib.train import training_arguments
    >>> row = {"ids": [7, 8], "mask": [0, 1], "roles": [0, 1], "margin_features": [0.5, -1.0]}
    >>> sides = {f"{side}_{name}": value for side in ("chosen", "rejected") for name, value in row.items()}
    >>> settings, tokenizer = ModelSettings(layers=1), train_tokenizer(["2*3?"], 300)
    >>> trainer = AdaptiveMarginTrainer(
    ...     tiny_model(settings, tokenizer, 64, seed=0),
    ...     DPOConfig(**training_arguments(tempfile.mkdtemp(), settings, seed=0)),
    ...     train_dataset=Dataset.from_list([sides]), processing_class=tokenizer,
    ...     peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    ... )
    >>> trainer.value_head.tolist()  # one weight per feature
    [0.0, 0.0]
    """

    def __init__(self, *args: Any, value_learning_rate: float | None = VALUE_LEARNING_RATE, **others: Any):
        self._value_learning_rate = value_learning_rate
        super().__init__(*args, **others)
        if self.loss_types != ["sigmoid"]:
            raise ValueError(
                f"The adaptive margin is a term of eq. (14) and needs loss_type=sigmoid alone, not {self.loss_types}: "
                "train without it, or without the other loss types."
            )
        rows: Any = self.train_dataset
        size = len(rows[0]["chosen_margin_features"])
        self.value_head = torch.nn.Parameter(torch.zeros(size, device=self.accelerator.device))
        # A parameter of the model: optimised, clipped and synchronised between processes with all others.
        self.model.register_parameter("value_head", self.value_head)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the trainer's, with a group of its own for w."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if new and self._value_learning_rate is not None:
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if weight is not self.value_head]
            own = {"params": [self.value_head], "lr": self._value_learning_rate, "weight_decay": 0.0}
            optimizer.add_param_group(own)
        return optimizer

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        torch.save(self.value_head.data, folder / VALUE_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.value_head.data.copy_(torch.load(Path(resume_from_checkpoint) / VALUE_FILE, weights_only=True))

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """As `TrajectoryDPOTrainer`'s, with C(tau) added to each trajectory's utility."""
        inputs = dict(inputs)
        features = inputs.pop("margin_features", None)
        # TRL multiplies log-ratios by beta, so that what is added here is C in the unit of the utility.
        self._forward.margin = None if features is None else features @ self.value_head / self.beta
        if features is not None and self._diagnostics:
            chosen, rejected = (features @ self.value_head.detach()).chunk(2)
            self._log_metric("luck", (chosen - rejected).abs().mean().item())
        return super().compute_loss(model, inputs, *args, **kwargs)
