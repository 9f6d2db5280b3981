"""Provenance: what a record says of the machine."""

from mtdpo_lib.common import provenance


def test_a_record_names_the_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(provenance.platform, "processor", lambda: "arm")
    assert provenance.processor("model name") == "arm"
    one = "processor\t: {}\nmodel name\t: Fast 9000 @ 3 GHz\nflags\t: model name\n\n"
    (tmp_path / "cpuinfo").write_text(one.format(0) + one.format(1))
    assert provenance.processor("Features", "flags") == "model name"
    assert provenance.machine()["processor"] == "Fast 9000 @ 3 GHz"
