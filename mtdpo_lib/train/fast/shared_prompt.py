"""The fast step: a causal model's log-probabilities of scored tokens, without work that nobody reads.

Four savings against a padded batch of whole rows, none of which changes a number beyond rounding:

1. What rows have in common at their beginning (at least the prompt of a pair) goes through the model once.
2. All rows lie one after another in one packed row, so nothing is padded; each attends to its own beginning only.
3. The output head runs where a token is scored, and its gradient is taken in the same pass: for a frozen head,
   d log p(y) / d h = W[y] - sum_v p(v) W[v] is known once the probabilities are.
4. Small LoRA layers multiply their factors first (`merged_lora`).

`supports` names the models it is tested for; for every other model TRL's own forward stays in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from trl.kernels import ChunkedLogProbFunction

from mtdpo_lib.train.data import IGNORED

ATTENTION = "mtdpo_shared_prompt"
MODELS = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")  # dense decoders the tests compare
HEAD_ROWS = 256  # tokens whose logits exist at one time
STATISTICS = ("log_probs", "entropy", "mean_logits", "is_top1")


# --- Packing ---


@dataclass(frozen=True)
class Group:
    """Rows with a common beginning: `shared` tokens, then the rest of each row, one after another.

    Attributes:
        shared: length of the common beginning.
        branches: length of the rest of each row.
        masks: for each branch, which of (beginning, branch) its tokens may see, [branch, shared + branch].
    """

    shared: int
    branches: tuple[int, ...]
    masks: tuple[Tensor, ...]


@dataclass(frozen=True)
class Packed:
    """All rows of a batch as one: ids and positions [1, L], and where every scored token is predicted.

    Attributes:
        sources: position whose hidden state predicts the token, [n].
        rows, columns: the token's row and its column in the shifted batch [N, T - 1], [n].
    """

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    sources: Tensor
    rows: Tensor
    columns: Tensor


def visible(shared: int, branch: int, device: torch.device, window: int | None = None) -> Tensor:
    """Which keys (beginning, then branch) each token of the branch may see, [branch, shared + branch].

    >>> visible(1, 2, torch.device("cpu")).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    query = torch.arange(shared, shared + branch, device=device)[:, None]
    key = torch.arange(shared + branch, device=device)[None, :]
    return (key <= query) if window is None else (key <= query) & (key > query - window)


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens with which all rows begin.

    >>> common_length([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    return next(
        (position for position, tokens in enumerate(zip(*rows)) if len(set(tokens)) > 1), min(map(len, rows))
    )


def pack(input_ids: Tensor, labels: Tensor, share: bool = True) -> Packed:
    """Rows that begin alike (up to their first scored token at least) are put together.

    A row ends before its last scored token: nothing looks at what follows.

    Args:
        input_ids: [N, T].
        labels: [N, T]; the token's id where it is scored, else -100.
        share: False keeps every row whole, to measure what sharing gains.

    >>> ids = torch.tensor([[4, 5, 6, 7], [4, 5, 8, 9]])
    >>> packed = pack(ids, torch.tensor([[-100, -100, 6, 7], [-100, -100, 8, 9]]))
    >>> packed.ids.tolist(), packed.positions.tolist()  # the prompt 4, 5 once; the last tokens predict nothing
    ([[4, 5, 6, 8]], [[0, 1, 2, 2]])
    """
    device = input_ids.device
    texts, scored = input_ids.tolist(), [row.nonzero()[0] for row in (labels != IGNORED).cpu().numpy()]
    members: dict[Any, list[int]] = {}
    for row, positions_of_row in enumerate(scored):
        if len(positions_of_row):
            beginning = tuple(texts[row][: positions_of_row[0]])
            members.setdefault(beginning if share else row, []).append(row)
    ids: list[int] = []
    positions: list[int] = []
    groups, sources, rows, columns = [], [], [], []
    for group in members.values():
        kept = [texts[row][: scored[row][-1]] for row in group]
        start, shared = len(ids), common_length(kept)
        ids += kept[0][:shared]
        positions += range(shared)
        for row, text in zip(group, kept, strict=True):
            branch = len(ids)
            ids += text[shared:]
            positions += range(shared, len(text))
            before = scored[row] - 1
            sources += [start + t if t < shared else branch + t - shared for t in before.tolist()]
            rows += [row] * len(before)
            columns += before.tolist()
        branches = tuple(len(text) - shared for text in kept)
        masks = tuple(visible(shared, branch, device) for branch in branches)
        groups.append(Group(shared, branches, masks))
    row_of_ids, row_of_positions, *places = (
        torch.tensor(numbers, device=device) for numbers in ([ids], [positions], sources, rows, columns)
    )
    return Packed(row_of_ids, row_of_positions, tuple(groups), *places)


# --- Attention ---


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float,
    softcap: float | None,
) -> Tensor:  # fmt: skip
    """Attention of queries [1, heads, Q, D] to keys [1, heads, K, D]; without a mask it is causal."""
    on_processor, autocast = query.device.type == "cpu", torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else query.dtype
    if on_processor and dtype == torch.bfloat16 and softcap is None and not dropout:
        return _attend_by_products(query.to(dtype), key.to(dtype), value.to(dtype), mask, scaling)
    if softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
        )
    if mask is None:
        mask = visible(key.shape[2] - query.shape[2], query.shape[2], query.device)
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * scaling / softcap)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return torch.dropout(weights, dropout, dropout > 0) @ value


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """The same by matrix products, for which processors have units of bfloat16 that torch's fused attention leaves idle."""
    if mask is None:
        mask = visible(key.shape[2] - query.shape[2], query.shape[2], query.device)
    hidden = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    heads = query.shape[1]
    scores = torch.baddbmm(hidden.expand(heads, -1, -1), query[0], key[0].transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), value[0])[None]


def _group_attention(
    group: Group, parts: Iterator[tuple[Tensor, ...]], window: int | None, **options: Any
) -> list[Tensor]:
    """Outputs of a group: of its beginning, then of each branch, which sees the beginning and itself.

    Query, key and value of all of them come next from `parts`.
    """
    needs_window = window is not None and group.shared + max(group.branches) > window
    query, key, value = next(parts)
    outputs = []
    if group.shared:
        mask = visible(0, group.shared, query.device, window) if needs_window else None
        outputs.append(_attend(query, key, value, mask, **options))
    for length, mask in zip(group.branches, group.masks, strict=True):
        query, *own = next(parts)
        if length:
            keys, values = (torch.cat(pieces, 2) for pieces in zip((key, value), own, strict=True))
            seen = visible(group.shared, length, query.device, window) if needs_window else mask
            outputs.append(_attend(query, keys, values, seen, **options))
    return outputs


def shared_prompt_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None,
    groups: Sequence[Group] | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """An attention function for `transformers`: with `groups` over a packed row, without them as "sdpa" does.

    Args:
        module: the model's attention layer.
        query: [1, heads, L, D]; key and value with their own number of heads.
        groups: of the packed row.

    Returns:
        [1, L, heads, D], and no weights.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if groups is None and softcap is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    key, value = (repeat_kv(each, module.num_key_value_groups) for each in (key, value))
    options = {"scaling": scaling, "dropout": dropout, "softcap": softcap}
    if groups is None:
        output = _attend(query, key, value, attention_mask, **options)
    else:
        # Split once: each slice of its own would have a gradient as large as the whole row
        lengths = [length for group in groups for length in (group.shared, *group.branches)]
        parts = zip(*(each.split(lengths, 2) for each in (query, key, value)), strict=True)
        outputs = (_group_attention(group, parts, sliding_window, **options) for group in groups)
        output = torch.cat([*itertools.chain(*outputs)], 2)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, shared_prompt_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


# --- Head ---


class ScoredHead(torch.autograd.Function):
    """Log-probabilities of targets under a frozen output head; the gradient is taken along the way.

    The gradient of a token's log-probability reaches its hidden state as a fixed vector times one number, so the vector is
    kept ([n, D]) and the logits ([HEAD_ROWS, V] at a time) are not.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [n, D]
        weight: Tensor,  # [V, D]
        bias: Tensor | None,  # [V]
        targets: Tensor,  # [n]
        softcap: float | None,
    ) -> tuple[Tensor, ...]:
        """Log-probability, entropy, mean logit, and whether the target is the likeliest token; each [n]."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        found = [torch.empty(len(hidden), device=hidden.device) for _ in range(3)]
        found.append(torch.empty(len(hidden), dtype=torch.bool, device=hidden.device))
        for start in range(0, len(hidden), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            target = targets[part, None]
            logits = linear(hidden[part].to(dtype), weight, bias).float()
            slope = None
            if softcap is not None:
                logits = torch.tanh_(logits.div_(softcap))
                slope = 1 - logits.square() if gradient is not None else None
                logits = logits.mul_(softcap)
            total = logits.logsumexp(-1)
            found[0][part] = logits.gather(1, target)[:, 0] - total
            found[2][part] = logits.mean(-1)
            found[3][part] = logits.argmax(-1) == target[:, 0]
            probabilities = (logits - total[:, None]).exp_()
            found[1][part] = total - torch.linalg.vecdot(probabilities, logits)
            if gradient is not None:
                ones = torch.ones_like(target, dtype=torch.float32)
                pull = probabilities.neg_().scatter_add_(1, target, ones)
                pull = pull if slope is None else pull.mul_(slope)
                gradient[part] = (pull.to(dtype) @ weight).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (gradient,), outer = ctx.saved_tensors, grad_outputs[0]
        return gradient * outer[:, None].to(gradient.dtype), None, None, None, None


def scored_head(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """`STATISTICS` of targets [n] given hidden states [n, D]."""
    head: Any = model.get_output_embeddings()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    if head.weight.requires_grad and torch.is_grad_enabled():  # full fine-tuning: the head learns too
        log_probs, entropy, _, mean, top = ChunkedLogProbFunction.apply(
            hidden, head.weight, head.bias, targets, 1.0, 32768, softcap, 1.0, STATISTICS[1:]
        )
        values = (log_probs, entropy, mean, top)
    else:
        values = ScoredHead.apply(hidden, head.weight, head.bias, targets, softcap)
    return dict(zip(STATISTICS, values, strict=True))


# --- Forward ---


def supports(model: PreTrainedModel) -> str | None:
    """Why the fast step cannot be used for `model`; None when it can.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> supports(GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1)))
    "its type is 'gpt2', not one of llama, mistral, gemma, gemma2, qwen2, qwen3"
    """
    if model.config.model_type not in MODELS:
        return f"its type is {model.config.model_type!r}, not one of {', '.join(MODELS)}"
    if model.config._attn_implementation not in ("sdpa", "eager", ATTENTION):
        return f"its attention is {model.config._attn_implementation!r}, not 'sdpa' or 'eager'"
    if type(model.get_output_embeddings()) is not torch.nn.Linear:
        return "its output head is not a plain linear layer"
    return None


def scored_forward(
    model: PreTrainedModel, input_ids: Tensor, labels: Tensor, watched: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """What TRL's fused head gives for a padded batch, computed on a packed row.

    Args:
        model: a causal model whose attention is `ATTENTION`.
        input_ids: [N, T].
        labels: [N, T]; -100 where nothing is scored.
        watched: [N, T]; more tokens whose log-probabilities are wanted without gradient.

    Returns:
        `STATISTICS`, each [N, T - 1] and zero where nothing is scored; log-probabilities of scored and watched tokens.
    """
    wanted = labels if watched is None else torch.where(watched, input_ids, labels)
    packed = pack(input_ids, wanted)
    states = model.base_model(
        input_ids=packed.ids,
        position_ids=packed.positions,
        # Four dimensions mean "ready made" to transformers, which then builds no mask; ours are in the groups.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=input_ids.device),
        use_cache=False,
        groups=packed.groups,
    ).last_hidden_state[0]
    targets = input_ids[packed.rows, packed.columns + 1]
    is_scored = labels[packed.rows, packed.columns + 1] != IGNORED

    def spread(part: Tensor, values: Tensor) -> Tensor:
        out = values.new_zeros(input_ids.shape[0], input_ids.shape[1] - 1)
        return out.index_put((packed.rows[part], packed.columns[part]), values)

    scored = is_scored.nonzero()[:, 0]
    found = scored_head(model, states[packed.sources[scored]], targets[scored])
    result = {name: spread(scored, values) for name, values in found.items()}
    if watched is None:
        return result, None
    others = (~is_scored).nonzero()[:, 0]
    with torch.no_grad():
        more = scored_head(model, states.detach()[packed.sources[others]], targets[others])["log_probs"]
    return result, result["log_probs"].detach() + spread(others, more)
