"""Profiles and their settings: what is refused, how the sentence reads, and that no default moved."""

import copy
import dataclasses
import os
import pickle

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError
from support import fuzzed

from mtdpo_lib.problems import SUITES
from mtdpo_lib.profiles import (
    BUDGETS,
    PROFILES,
    ModelSettings,
    PreferenceSettings,
    SettingError,
    SFTSettings,
    get_profile,
    setting_values,
    settings_hash,
)
from mtdpo_lib.profiles.sections import allowed


def as_text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_named_and_frozen(name):
    profile = get_profile(name)
    assert profile.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.iterations = 9


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("smoke", "", "7372a23f87f8"),
        ("cpu", "", "76a587be2e2a"),
        ("habits", "", "b525e225dd6a"),
        ("small", "", "d99a5399b0c1"),
        ("paper", "", "0ed2c15b749c"),
        ("paper-codegemma", "", "05509c591792"),
        ("paper-mistral", "", "a88ff99dadd5"),
        ("paper-gemma2", "", "5312115e1098"),
        ("small", "budget=tiny", "9215d4a83fe0"),
        ("small", "budget=qlora", "b6cfb8301e93"),
        ("small", "budget=reduced", "681470ee50f3"),
    ],
)
def test_no_setting_of_a_profile_moves_unseen(name, settings, expected):
    assert settings_hash(get_profile(name, settings), 0) == expected, (
        "a name or default changed: kept records of this profile no longer belong to it"
    )


def test_a_younger_setting_enters_the_hash_only_when_it_is_set():
    hashes = [settings_hash(get_profile("smoke", f"preference.least_right={share}"), 0) for share in (0, 0.1)]
    assert hashes[0] == settings_hash(get_profile("smoke"), 0) != hashes[1]


def test_settings_change_one_value_and_nothing_else():
    changed, plain = get_profile("cpu", "preference.eta=0.25"), get_profile("cpu")
    assert changed.preference.eta == 0.25
    assert dataclasses.replace(changed, preference=plain.preference) == plain


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            "preference.eta=high",
            "Setting preference.eta wants a number above zero, at most 10000000, got high.",
        ),
        ("preference.eta=-1", "Setting preference.eta wants a number above zero, at most 10000000, got -1."),
        ("preference.eta=0", "Setting preference.eta wants a number above zero, at most 10000000, got 0."),
        (
            "preference.eta=nan",
            "Setting preference.eta wants a number above zero, at most 10000000, got nan.",
        ),
        (
            "preference.eta=inf",
            "Setting preference.eta wants a number above zero, at most 10000000, got inf.",
        ),
        ("preference.nll_coefficient=-inf", "wants a number, zero or more, at most 10000000, got -inf."),
        ("sft.warmup_fraction=5", "Setting sft.warmup_fraction wants a number between 0 and 1, got 5."),
        ("rollout.tool_noise=1.5", "Setting rollout.tool_noise wants a number between 0 and 1, got 1.5."),
        ("rollout.tool_noise=nan", "wants a number between 0 and 1, got nan."),
        (
            "preference.eta=1e308",
            "Setting preference.eta wants a number above zero, at most 10000000, got 1e308.",
        ),
        ("preference.epochs=1e300", "wants a number above zero, at most 10000000, got 1e300."),
        ("preference.learning_rate=3", "wants a number above zero, at most 1, got 3."),
        ("model.hidden=1000000", "wants a whole number above zero, at most 65536, got 1000000."),
        ("evaluation.bootstrap=99999999999", "at most 10000000, got 99999999999."),
        ("iterations=2.5", "Setting iterations wants a whole number above zero, at most 10000000, got 2.5."),
        ("iterations=2.0", "Setting iterations wants a whole number above zero, at most 10000000, got 2.0."),
        ("iterations=0", "Setting iterations wants a whole number above zero, at most 10000000, got 0."),
        ("rollout.samples_previous=-1", "wants a whole number, zero or more, at most 10000000, got -1."),
        ("problems.families=13", "Setting problems.families wants a whole number from 0 to 12, got 13."),
        (
            "pairs.drop_winner_errors=maybe",
            "Setting pairs.drop_winner_errors wants true or false, got maybe.",
        ),
        ("sandbox.remember=1", "Setting sandbox.remember wants true or false, got 1."),
        ("preference.reference=last", "Setting preference.reference wants one of updated, fixed, got last."),
        ("model.quantization=int8", "wants one of none, nf4, got int8."),
        ("model.template=gemma", "wants one of mistral, got gemma."),
        ("sandbox.backend=docker", "wants one of wasm, zygote, got docker."),
        (
            "rollout.sampler=tgi",
            "wants torch, vllm or the URLs of vLLM servers, separated by commas, got tgi.",
        ),
        (
            "rollout.sampler=http://a:1,",
            "wants torch, vllm or the URLs of vLLM servers, separated by commas, got http://a:1,.",
        ),
        ("model.heads=3", "Setting model.heads is 3: it must be even, and model.hidden (128) a multiple"),
        ("model.hidden=100", "model.hidden (100) a multiple of twice its value."),
        ("model.heads=128", "model.hidden (128) a multiple of twice its value."),
        ("sft.epochs=1 sft.early_epochs=2", "set sft.early_epochs=1 or less."),
        (
            "sft.early_epochs=5",
            "sft.early_epochs is 5, more than the 2 of sft.epochs: set sft.early_epochs=2",
        ),
        (
            "sft.start_epochs=2.5",
            "sft.start_epochs is 2.5, and SFT keeps the policy after every whole epoch and after 0.2 (sft",
        ),
        ("sft.start_epochs=5", "set it to one of these, at most 2."),
        ("tune.rates=1e-4,", "Setting tune.rates wants numbers, separated by commas, got 1e-4,."),
        ("tune.rates=high", "Setting tune.rates wants numbers, separated by commas, got high."),
        (
            "model.adapter=none rollout.sampler=http://a:1",
            "a server has one: set rollout.sampler to torch or vllm.",
        ),
        (
            "model.adapter=none model.quantization=nf4",
            "those in 4 bits cannot be: set model.quantization=none.",
        ),
        (
            "model.adapter=none preference.stochastic_tool_correction=4",
            "stochastic_tool_correction is learnt beside an adapter: set model.adapter=lora.",
        ),
        ("pairs.pairs_per_prompt=7", "set 14 or more, or fewer pairs.pairs_per_prompt than 7."),
        ("tune.etas=0.1", "Settings tune.etas and tune.raft_rows name 1 and 2 values: give equally many"),
        ("model.base=\udcff", "Setting model.base wants a text, got"),
        ("preference.eta", "A setting is written name=value"),
        ("preference.eta=", "A setting is written name=value"),
        ("budget=tinny", "Unknown budget 'tinny': did you mean tiny?"),
        (
            "seed=3",
            "The seed is not among the settings: give it as --seed, or to a notebook as its parameter",
        ),
    ],
)
def test_bad_input_gets_one_sentence(settings, sentence):
    with pytest.raises(SettingError) as caught:
        get_profile("cpu", settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(SettingError, match=r"Unknown profile 'cpuu': did you mean cpu\?"):
        get_profile("cpuu")


@pytest.mark.parametrize(
    ("guess", "meant"),
    [
        ("preference.etaa", "preference.eta"),
        ("prefrence.eta", "preference.eta"),
        ("eta", "preference.eta"),
        ("Eta", "preference.eta"),
        ("preference.beta", "preference.eta"),
        ("preference.lr", "preference.learning_rate"),
        ("pref.lr", "preference.learning_rate"),
        ("lr", "sft.learning_rate or preference.learning_rate"),
        ("sft.rate", "sft.learning_rate"),
        ("rollout.samples", "rollout.samples_current or rollout.samples_previous"),
        ("n", "rollout.samples_current or rollout.samples_previous"),
        ("train.epochs", "sft.epochs or preference.epochs"),
        ("sft.epoch", "sft.epochs"),
        ("eval.batch-size", "evaluation.batch_size"),
        ("temp", "model.template or rollout.temperature"),
        ("rollout.temp", "rollout.temperature"),
        ("rollout.max_turns", "rollout.max_rounds"),
        ("model.rank", "model.lora_rank"),
        ("model.r", "model.lora_rank"),
        ("sandbox.timeout", "sandbox.seconds"),
        ("sandbox.memory", "sandbox.memory_mib"),
        ("iteration", "iterations"),
        ("problems.max_steps", "problems.gsm8k_max_steps"),
    ],
)
def test_a_guessed_name_is_told_what_it_may_mean(guess, meant):
    with pytest.raises(SettingError) as caught:
        get_profile("cpu", f"{guess}=1")
    assert str(caught.value) == f"Unknown setting {guess!r}: did you mean {meant}?"


def test_a_name_like_none_is_told_all():
    with pytest.raises(SettingError, match=r"'xyzzy': known are iterations, problems\.world, "):
        get_profile("cpu", "xyzzy=1")


@pytest.mark.parametrize(
    ("cores", "memory", "most"),
    [(4, 32_000, 16), (None, 32_000, 8), (64, 32_000, 125), (4, 2_000, 7), (4, 100, 1)],
)
def test_more_workers_than_cores_and_memory_can_serve_are_refused(monkeypatch, cores, memory, most):
    """At 256 MiB for a program; said before a worker is started."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr("mtdpo_lib.profiles.overrides.memory_mib", lambda: memory)
    assert get_profile("cpu", f"sandbox.workers={most}").sandbox.workers == most
    for more in (most + 1, 1_000_000):
        with pytest.raises(
            SettingError, match=rf"workers is {more}, more than .*{memory} MiB.*: set {most} or less"
        ):
            get_profile("cpu", f"sandbox.workers={more}")


NAMES = (
    st.sampled_from([*setting_values(PROFILES["cpu"]), "budget", "seed", "eta", "model", "problems."])
    | st.text()
)
NUMBERS = (
    st.floats().map(str) | st.integers().map(str) | st.sampled_from(["1e400", "1_0", "１", "0x1", "9" * 5000])
)
VALUES = (
    NUMBERS | st.text(st.characters(exclude_categories=[])) | st.sampled_from(["true", "none", "tiny", "nf4"])
)
ASSIGNMENTS = st.lists(st.tuples(NAMES, VALUES).map("=".join) | st.text(), max_size=4)


@fuzzed(st.sampled_from([*PROFILES]) | st.text(), ASSIGNMENTS | ASSIGNMENTS.map(" ".join))
def test_any_settings_give_a_profile_or_a_sentence(name, settings):
    try:
        profile = get_profile(name, settings)
    except SettingError as error:
        assert len(str(error)) > 20 and "pydantic" not in str(error)
        return
    assert len(settings_hash(profile, 0)) == 12
    for value in setting_values(profile).values():
        assert not isinstance(value, float) or abs(value) < float("inf")


def test_settings_that_must_change_together_can():
    assert get_profile("cpu", "sft.epochs=1 sft.early_epochs=1").sft.epochs == 1
    assert get_profile("cpu", "model.heads=2 model.hidden=12").model.heads == 2


def test_every_setting_can_be_set_to_its_own_value():
    for name, profile in PROFILES.items():
        for setting, value in setting_values(profile).items():
            assert get_profile(name, {setting: as_text(value)}) == get_profile(name)


def test_every_setting_says_in_words_what_it_may_be():
    for setting, value in setting_values(PROFILES["cpu"]).items():
        words = allowed(setting)[1]
        starts = {
            bool: "true or",
            int: "a whole",
            float: "a number",
            str: ("one of", "a text", "torch,", "numbers,"),
        }
        assert words.startswith(starts[type(value)]), setting


def test_as_many_families_may_be_asked_as_there_are():
    assert all(len(families) == 12 for families in SUITES.values())
    assert get_profile("cpu", "problems.families=12").problems.families == 12


def test_sections_made_by_hand_are_checked_too():
    for change in ({"eta": -1.0}, {"eta": "0.5"}, {"checkpoints": 2.0}, {"checkpoints": True}, {"etaa": 1.0}):
        with pytest.raises(ValidationError):
            dataclasses.replace(PreferenceSettings(), **change)


def test_sections_are_values():
    for profile in PROFILES.values():
        for other in (copy.deepcopy(profile), pickle.loads(pickle.dumps(profile))):
            assert other == profile and hash(other) == hash(profile)
    assert {SFTSettings(), SFTSettings(epochs=3)} == {SFTSettings()}
    assert ModelSettings(**dataclasses.asdict(ModelSettings(lora_rank=4))) == ModelSettings(lora_rank=4)


def test_fields_that_enter_no_key_are_marked():
    profile = PROFILES["cpu"]
    marked = {
        f"{section.name}.{item.name}"
        for section in dataclasses.fields(profile)
        if dataclasses.is_dataclass(getattr(profile, section.name))
        for item in dataclasses.fields(getattr(profile, section.name))
        if not item.metadata.get("in_stage_key", True)
    }
    assert marked == {
        "rollout.samples_current",
        "rollout.samples_previous",
        "rollout.replicate",
        "sft.early_epochs",
        "sft.start_epochs",
        "preference.reference",
        "preference.least_right",
        "preference.checkpoint_choice",
        "evaluation.bootstrap",
        "evaluation.often",
        "evaluation.often_samples",
        "evaluation.sampled",
    }


def test_a_budget_is_a_bundle_that_single_settings_override():
    profile = get_profile("small", "budget=tiny problems.test=5")
    assert profile.problems.test == 5
    assert profile.iterations == int(BUDGETS["tiny"]["iterations"])


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_sets_what_it_says(budget):
    values = setting_values(get_profile("paper", f"budget={budget}"))
    assert all(values[name] == type(values[name])(text) for name, text in BUDGETS[budget].items())


def test_gsm8k_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MTDPO_GSM8K_DIR", "/data/gsm8k")
    assert get_profile("small").problems.gsm8k_dir == "/data/gsm8k"
    assert get_profile("small", "problems.gsm8k_dir=/other").problems.gsm8k_dir == "/other"
    assert get_profile("cpu").problems.gsm8k_dir == ""
