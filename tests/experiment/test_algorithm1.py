"""The graph of stages: what a changed setting redoes, and what policies and iterations say of themselves."""

import pytest

from mtdpo_lib.common.files import write_json
from mtdpo_lib.experiment import steps
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.experiment.check import WeakStart
from mtdpo_lib.experiment.study import Planned
from mtdpo_lib.lessons.run import INPUT_FAILURES
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
        ("problems.demonstrations_each=3", "demonstrations"),
        ("problems.wordings=3", "demonstrations"),
        ("problems.log_lines=2", "demonstrations"),
        ("problems.level=3", "demonstrations"),
        ("sandbox.memory_mib=99", "demonstrations"),
        ("sft.epochs=9", "sft"),
        ("sft.early_epochs=2", "rollouts/1"),
        ("sft.start_epochs=1", "rollouts/1"),
        ("problems.prompts_per_iteration=9", "rollouts/1"),
        ("rollout.samples_current=9", "rollouts/1"),
        ("rollout.replicate=1", "rollouts/1"),
        ("pairs.pairs_per_prompt=2", "pairs/1"),
        ("pairs.right_per_prompt=2", "pairs/1"),
        ("preference.eta=9.0", "training/1"),
        ("problems.development=9", "selection/1"),
        ("preference.checkpoint_choice=random", "selection/1"),
        ("evaluation.batch_size=9", "selection/1"),
        ("problems.test=9", "evaluation/mdpo-1"),
        ("evaluation.sampled=9", "evaluation/mdpo-1"),
        ("evaluation.bootstrap=99", None),
        ("tune.rates=1e-9", None),
        ("preference.least_right=0.5", None),
        ("preference.reference=fixed", None),  # in iteration 1 it is the same policy
        ("problems.gsm8k_max_steps=3", None),  # of a world that is not asked, as the next
        ("problems.families=3", None),
    ],
)
def test_a_setting_redoes_the_stage_that_received_it_and_what_comes_after(tmp_path, setting, first):
    before, now = keys(tmp_path), keys(tmp_path, setting)
    assert set(before) == {"base", *CHAIN}
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


def test_preference_learning_begins_when_enough_samples_are_right(tmp_path):
    experiment = Planned(get_profile("smoke", "preference.least_right=0.5"), 0, tmp_path)
    sft = [experiment.sft_policy()]
    first = experiment.iteration(1, sft)  # of a plan nothing is made, so nothing is known
    second = experiment.iteration(2, [*sft, first.policy])
    for made, right in ((first, 3), (second, 0)):
        made.pairs.path.mkdir(parents=True)
        write_json(made.pairs.path / "manifest.json", {"files": {}, "seconds": 1.0})
        write_json(made.pairs.path / "report.json", {"trajectories": {"right": right, "wrong": 3}})
    assert experiment.iteration(1, sft).training == first.training
    assert experiment.iteration(2, [*sft, first.policy]).training == second.training, (
        "only the start is looked at"
    )
    write_json(first.pairs.path / "report.json", {"trajectories": {"right": 2, "wrong": 3}})
    with pytest.raises(
        WeakStart, match=r"2 of the 5 samples on fresh prompts are right \(40.0%\).* begins at 50% "
    ):
        experiment.iteration(1, sft)
    assert experiment.iteration(1, sft, least_right=0.4).training == first.training, "it redoes nothing"
    assert WeakStart.__name__ in INPUT_FAILURES, "exit code 2"


def test_where_all_weights_are_trained_every_policy_is_a_whole_model(tmp_path):
    few = "problems.demonstrations=16 problems.prompts_per_iteration=8 problems.development=4 problems.test=4 sft.epochs=1"
    profile = get_profile("smoke", f"{few} model.adapter=none evaluation.sampled=0")
    experiment = Experiment(profile, 0, tmp_path)
    policies = [experiment.sft_policy(), *(iteration.policy for iteration in experiment.run())]
    assert [policy.base for policy in policies] == [None] * 3
    weights = [(policy.folder / "model.safetensors").read_bytes() for policy in policies]
    assert len(set(weights)) == 3
    assert len(experiment.outcomes(policies[-1])["greedy"]) == 4


def test_an_arm_is_no_part_of_a_key(tmp_path):
    experiment = Planned(get_profile("smoke"), 0, tmp_path)
    sft = [experiment.sft_policy()]
    one, other = (experiment.iteration(1, sft, arm=arm).policy for arm in ("mdpo", "other"))
    assert one == other and (one.name, other.name, one.arm, other.arm) == (
        "mdpo-1",
        "other-1",
        "mdpo",
        "other",
    )
    assert experiment.evaluation(one).path == experiment.evaluation(other).path
    twice = [experiment.iteration(2, [*sft, policy]).rollouts.path for policy in (one, other)]
    assert twice[0] == twice[1], "what the same policies sample is sampled once"


def test_fewer_epochs_of_sft_start_from_the_same_run_and_mix_in_the_same_policy(tmp_path):
    def sources(*settings):
        experiment = Planned(get_profile("smoke", settings), 0, tmp_path)
        return [policy for policy, _ in experiment.sources(1, [experiment.sft_policy()])]

    (start, early), (fewer, mixed_in), (underfit, same) = (
        sources(), sources("sft.start_epochs=1"), sources("sft.start_epochs=2")
    )  # fmt: skip
    assert (start.part, fewer.part, underfit.part) == ("epoch-3", "epoch-1", "epoch-2")
    assert early == mixed_in == same and early.part == "epoch-1"
    assert start.product == fewer.product == underfit.product


def test_one_iteration_takes_settings_of_sampling_and_of_pairs_too(tmp_path):
    experiment = Planned(get_profile("smoke"), 0, tmp_path)
    sft = [experiment.sft_policy()]
    plain = experiment.iteration(1, sft)
    changes = {"temperature": 0.7, "max_rounds": 2, "samples_current": 9, "samples_previous": 0, "drop_winner_errors": False,
               "eta": 0.1}  # fmt: skip
    made = experiment.iteration(1, sft, **changes)
    sampling = made.rollouts.inputs["sampling"].rollout
    assert (sampling.temperature, sampling.max_rounds) == (0.7, 2)
    assert [(policy.name, samples) for policy, samples in made.sources] == [("sft", 9)]
    assert not made.pairs.inputs["pairs"].drop_winner_errors and made.training.inputs["preference"].eta == 0.1
    assert experiment.iteration(1, sft).training == plain.training, "the experiment's own settings stay"
    with pytest.raises(ValueError, match="temprature"):
        experiment.iteration(1, sft, temprature=0.7)
    only_learning = experiment.iteration(1, sft, eta=0.1)
    assert only_learning.pairs == plain.pairs and only_learning.training != plain.training


def test_changed_samples_are_the_notebooks_own_and_others_are_required(tmp_path):
    notebook = "08_mixture_sampling"
    asked = []

    class Noting(Planned):
        def _find(self, stage, name, inputs, owner):
            asked.append((name, owner))
            return super()._find(stage, name, inputs, owner)

    experiment = Noting(get_profile("smoke"), 0, tmp_path)
    sft = [experiment.sft_policy()]
    for settings, owner in (({"eta": 0.1}, "04_rollouts_and_answers"), ({"temperature": 0.7}, notebook)):
        asked.clear()
        experiment.iteration(1, sft, notebook=notebook, **settings)
        assert dict(asked)["rollouts/1"] == owner and dict(asked)["training/1"] == notebook


def test_what_a_stage_lacks_is_named(tmp_path):
    with pytest.raises(KeyError, match="rollouts"):
        Planned(get_profile("smoke"), 0, tmp_path).make(steps.Pairs, "pairs/1")
