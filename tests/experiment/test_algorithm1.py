"""The graph of stages: what a changed setting redoes, and what policies and iterations say of themselves."""

import pytest

from mtdpo_lib.experiment import steps
from mtdpo_lib.experiment.study import Planned
from mtdpo_lib.profiles import get_profile

CHAIN = ["demonstrations", "sft", "rollouts/1", "pairs/1", "training/1", "selection/1", "evaluation/mdpo-1"]


def keys(tmp_path, *settings):
    """Keys of all products of a run and of its last policy's evaluation."""
    experiment = Planned(get_profile("smoke", ["iterations=1", *settings]), 0, tmp_path)
    experiment.evaluation(experiment.run()[-1].policy)
    return {product.name: product.key for product in experiment.made}


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("problems.demonstrations=9", "demonstrations"),
        ("problems.log_lines=2", "demonstrations"),
        ("problems.families=3", "demonstrations"),
        ("sandbox.memory_mib=99", "demonstrations"),
        ("sft.epochs=9", "sft"),
        ("problems.prompts_per_iteration=9", "rollouts/1"),
        ("rollout.samples_current=9", "rollouts/1"),
        ("pairs.pairs_per_prompt=2", "pairs/1"),
        ("preference.eta=9.0", "training/1"),
        ("problems.development=9", "selection/1"),
        ("preference.checkpoint_choice=random", "selection/1"),
        ("evaluation.batch_size=9", "selection/1"),
        ("problems.test=9", "evaluation/mdpo-1"),
        ("evaluation.sampled=9", "evaluation/mdpo-1"),
        ("evaluation.bootstrap=99", None),
        ("preference.reference=fixed", None),  # in iteration 1 it is the same policy
        ("problems.gsm8k_max_steps=3", None),  # of a world that is not asked
    ],
)
def test_a_setting_redoes_the_stage_that_received_it_and_what_comes_after(tmp_path, setting, first):
    before, now = keys(tmp_path), keys(tmp_path, setting)
    assert set(before) == set(CHAIN)
    assert [name for name in CHAIN if before[name] != now[name]] == CHAIN[
        CHAIN.index(first) if first else 99 :
    ]


def test_the_reference_counts_as_a_policy_not_as_a_word(tmp_path):
    updated, fixed = (keys(tmp_path, "iterations=2", *more) for more in ((), ("preference.reference=fixed",)))
    assert updated["training/1"] == fixed["training/1"]  # the SFT policy in both
    assert updated["training/2"] != fixed["training/2"]


def test_policies_say_which_arm_and_iteration_they_are(tmp_path):
    experiment = Planned(get_profile("smoke", "iterations=2"), 0, tmp_path)
    iterations = experiment.run()
    policies = [experiment.sft_policy(), *(iteration.policy for iteration in iterations)]
    told = [(policy.name, policy.arm, policy.iteration) for policy in policies]
    assert told == [("sft", "sft", 0), ("mdpo-1", "mdpo", 1), ("mdpo-2", "mdpo", 2)]
    assert experiment.sft_policy("early").arm == "sft-early"
    variant = experiment.iteration(2, policies[:2], name="mdpo-2-fixed", reference="fixed").policy
    assert (variant.name, variant.arm, variant.iteration) == ("mdpo-2-fixed", "mdpo-fixed", 2)
    arm = experiment.iteration(1, policies[:1], arm="eta-low", eta=0.1).policy
    assert (arm.name, arm.arm, arm.iteration) == ("eta-low-1", "eta-low", 1)


def test_an_arm_is_no_part_of_a_key(tmp_path):
    experiment = Planned(get_profile("smoke"), 0, tmp_path)
    sft = [experiment.sft_policy()]
    one, other = (experiment.iteration(1, sft, name="mdpo-1", arm=arm).policy for arm in ("mdpo", "other"))
    assert one == other and one.arm != other.arm
    assert experiment.evaluation(one).key == experiment.evaluation(other).key


def test_what_a_stage_lacks_is_named(tmp_path):
    with pytest.raises(KeyError, match="rollouts"):
        Planned(get_profile("smoke"), 0, tmp_path).make(steps.Pairs, "pairs/1")
