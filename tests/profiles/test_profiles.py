"""Profiles and their settings: what is refused, and how the sentence reads."""

import dataclasses

import pytest

from mtdpo_lib.profiles.overrides import get_profile, setting_names
from mtdpo_lib.profiles.presets import BUDGETS, PROFILES
from mtdpo_lib.profiles.sections import SettingError


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_named_and_frozen(name):
    profile = get_profile(name)
    assert profile.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.iterations = 9


def test_settings_change_one_value_and_nothing_else():
    changed, plain = get_profile("cpu", "preference.eta=0.5"), get_profile("cpu")
    assert changed.preference.eta == 0.5
    assert dataclasses.replace(changed, preference=plain.preference) == plain


@pytest.mark.parametrize(
    ("profile", "settings", "sentence"),
    [
        ("cpuu", "", "Unknown profile 'cpuu': did you mean cpu?"),
        ("cpu", "preference.etaa=1", "Unknown setting 'preference.etaa': did you mean preference.eta"),
        ("cpu", "eta=1", "Unknown setting 'eta'"),
        ("cpu", "preference.eta=high", "Setting preference.eta wants a number, got 'high'."),
        ("cpu", "iterations=2.5", "Setting iterations wants a whole number, got '2.5'."),
        ("cpu", "pairs.drop_winner_errors=maybe", "wants true or false"),
        ("cpu", "preference.eta=-1", "wants a number above zero"),
        ("cpu", "preference.eta=0", "wants a number above zero"),
        ("cpu", "preference.reference=last", "wants one of updated, fixed"),
        ("cpu", "model.quantization=int8", "wants one of none, nf4"),
        ("cpu", "preference.eta", "A setting is written name=value"),
        ("cpu", "budget=tinny", "Unknown budget 'tinny': did you mean tiny?"),
    ],
)
def test_bad_input_gets_one_sentence(profile, settings, sentence):
    with pytest.raises(SettingError) as caught:
        get_profile(profile, settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_setting_can_be_set_to_its_own_value():
    for name, profile in PROFILES.items():
        for setting in setting_names(profile):
            section, _, inner = setting.rpartition(".")
            value = getattr(getattr(profile, section) if section else profile, inner)
            if value != "":
                text = str(value).lower() if isinstance(value, bool) else str(value)
                assert get_profile(name, {setting: text}).to_dict() == get_profile(name).to_dict()


def test_a_budget_is_a_bundle_that_single_settings_override():
    profile = get_profile("small", "budget=tiny problems.test=5")
    assert profile.problems.test == 5
    assert profile.iterations == int(BUDGETS["tiny"]["iterations"])


def test_gsm8k_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MTDPO_GSM8K_DIR", "/data/gsm8k")
    assert get_profile("small").problems.gsm8k_dir == "/data/gsm8k"
    assert get_profile("small", "problems.gsm8k_dir=/other").problems.gsm8k_dir == "/other"
    assert get_profile("cpu").problems.gsm8k_dir == ""
