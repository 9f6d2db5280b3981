"""Seeds: the values that kept results were made with, and streams that do not meet."""

import hashlib

from mtdpo_lib.common.seeds import digest, stream, stream31


def test_streams_keep_their_values():
    assert stream(0) == 4761921975702974394
    assert stream(3, "rollout", 1, "gsm-like/preference/7", 2) == 9215485966294973030
    assert stream31(0, "adapter") == 313821658


def test_names_are_kept_apart():
    assert stream(1, "a", "b") != stream(1, "ab")
    assert stream(1, "a", 2) == stream(1, "a", "2")
    assert stream(1, "a", 2) != stream(2, "a", 1)


def test_streams_fit_where_they_are_used():
    seeds = [stream(seed, "fit") for seed in range(2000)]
    assert max(seeds) < 2**63 and max(seeds) > 2**62  # all 63 bits are used
    small = [stream31(seed, "fit") for seed in range(2000)]
    assert max(small) < 2**31 and max(small) > 2**30
    assert len(set(seeds)) == len(seeds)


def test_a_digest_is_blake2b_of_all_parts():
    expected = hashlib.blake2b("aé".encode() + b"\x00", digest_size=6).hexdigest()
    assert digest("aé", b"\x00", size=6) == digest("a", "é", b"\x00", size=6) == expected
    assert len(digest()) == 16
