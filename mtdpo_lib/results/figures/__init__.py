"""Figures: one function each, from records to a `Figure`; notebooks show them and never style."""

# isort: skip_file
# fmt: off
from mtdpo_lib.results.figures.run import (
    accuracy_by_iteration, comparison, coverage_curve, histogram, memory_by_part, outcome_mix, pair_yield,
    quantized_weights, sft_curve, training_curves,
)
from mtdpo_lib.results.figures.study import (
    arms, claims, claims_by_world, dose_response, gain_by_start, lead_by_start, over_iterations, pass_at_n,
)
from mtdpo_lib.results.figures.style import Figure, style_of
from mtdpo_lib.results.figures.theory import (
    bias_by_randomness, coverage_and_error, eta_effect, gamble_policies, identity_scatter, kto_path,
    observation_scoring, reference_iterations, sample_error, value_samples,
)
from mtdpo_lib.results.figures.tune import tuning

__all__ = [
    "Figure", "accuracy_by_iteration", "arms", "bias_by_randomness", "claims", "claims_by_world", "comparison",
    "coverage_and_error", "coverage_curve", "dose_response", "eta_effect", "gain_by_start",
    "gamble_policies", "histogram", "identity_scatter", "kto_path", "lead_by_start", "memory_by_part",
    "observation_scoring", "outcome_mix", "over_iterations", "pair_yield", "pass_at_n",
    "quantized_weights", "reference_iterations", "sample_error", "sft_curve", "style_of",
    "training_curves", "tuning", "value_samples",
]
