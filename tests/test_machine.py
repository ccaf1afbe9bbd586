"""What a run decides by the machine that it finds."""

from __future__ import annotations

import pytest

from bench.core import machine


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_the_processor_has_it(monkeypatch, native):
    monkeypatch.setattr(machine, "has_native_bf16", lambda: native)
    assert machine.resolve_precision("auto", "cpu") == ("bf16" if native else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_was_asked_for_stays(precision, device):
    assert machine.resolve_precision(precision, device) == precision
