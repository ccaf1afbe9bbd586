"""What a run decides by the machine that it finds."""

from __future__ import annotations

import pytest

from bench.core import machine
from bench.core.errors import BenchError


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_the_processor_has_it(monkeypatch, native):
    monkeypatch.setattr(machine, "has_native_bf16", lambda: native)
    assert machine.resolve_precision("auto", "cpu") == ("bf16" if native else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_was_asked_for_stays(precision, device):
    assert machine.resolve_precision(precision, device) == precision


def test_jobs_are_one_for_each_core_that_has_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "absent")
    monkeypatch.setattr(machine, "core_count", lambda: 4)
    monkeypatch.setattr(machine, "memory_gib", lambda: 100.0)
    assert machine.resolve_jobs("auto", "auto") == 4
    monkeypatch.setattr(machine, "memory_gib", lambda: 7.5)
    assert machine.resolve_jobs("auto", "cpu") == 2
    monkeypatch.setattr(machine, "memory_gib", lambda: 1.0)
    assert machine.resolve_jobs("auto", "cpu") == 1


def test_one_job_at_a_time_uses_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "NVIDIA", tmp_path)
    monkeypatch.setattr(machine, "resolve_device", lambda device: "cuda")
    assert machine.resolve_jobs("auto", "auto") == 1
    assert machine.resolve_jobs("3", "auto") == 3


def test_jobs_that_were_asked_for_stay():
    assert machine.resolve_jobs(5, "cpu") == 5
    assert machine.resolve_jobs("5", "cpu") == 5


@pytest.mark.parametrize("wrong", ["two", "-1", "1.5", "²"])
def test_jobs_are_a_number_or_auto(wrong):
    with pytest.raises(BenchError, match="expected a whole number, at least 1, or auto"):
        machine.resolve_jobs(wrong, "cpu")
