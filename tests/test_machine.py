"""What a run decides by the machine that it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from bench.core import cgroup, machine
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


# --- Containers: a made-up /sys/fs/cgroup and /proc/self/cgroup ----------------------------------

GIB = 2**30
UNLIMITED = "9223372036854771712"  # what v1 says where there is no limit
V1 = "9:name=systemd:/x\n4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n"
MACHINES: dict[str, tuple[str, dict[str, str], float | None, int | None]] = {
    "v2": ("0::/\n", {"cpu.max": "150000 100000", "memory.max": str(4 * GIB)}, 1.5, 4 * GIB),
    "v2 without limits": ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
    "v2, the outer group is smaller": (
        "0::/pod/box\n",
        {
            "pod/cpu.max": "200000 100000",
            "pod/box/cpu.max": "max 100000",
            "pod/memory.max": str(2 * GIB),
            "pod/box/memory.max": str(3 * GIB),
        },
        2.0,
        2 * GIB,
    ),
    "v2, the inner group is smaller": (
        "0::/pod/box\n",
        {
            "pod/cpu.max": "800000 100000",
            "pod/box/cpu.max": "50000 100000",
            "pod/memory.max": "max",
            "pod/box/memory.max": str(GIB),
        },
        0.5,
        GIB,
    ),
    "v2, other groups are not ours": (
        "0::/pod/box\n",
        {"pod/other/cpu.max": "50000 100000", "pod/other/memory.max": "1"},
        None,
        None,
    ),
    "v2, named as the machine does": ("0::/pod/box\n", {"cpu.max": "300000 100000"}, 3.0, None),
    "v2, outside our namespace": ("0::/../box\n", {"memory.max": str(GIB)}, None, GIB),
    "v1": (
        V1,
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": str(8 * GIB),
            "memory/box/memory.limit_in_bytes": UNLIMITED,
        },
        2.5,
        8 * GIB,
    ),
    "v1, mounted by its short name": (
        V1,
        {"cpu/box/cpu.cfs_quota_us": "100000", "cpu/box/cpu.cfs_period_us": "100000"},
        1.0,
        None,
    ),
    "v1 without a quota": (
        V1,
        {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"},
        None,
        None,
    ),
    "nothing": ("", {}, None, None),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_smallest_limit_of_the_groups_counts(tmp_path: Path, name: str) -> None:
    said, files, cores, memory = MACHINES[name]
    root, groups = tmp_path / "sys", tmp_path / "groups"
    root.mkdir()
    groups.write_text(said)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content + "\n")
    assert cgroup.cores(root, groups) == cores
    assert cgroup.memory(root, groups) == memory


def test_no_groups_at_all(tmp_path: Path) -> None:
    """As on a system that is not Linux."""
    assert cgroup.cores(tmp_path / "a", tmp_path / "b") is None
    assert cgroup.memory(tmp_path / "a", tmp_path / "b") is None


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.0, 1), (2.5, 3), (64.0, 8), (None, 8)])
def test_cores_and_memory_are_those_of_the_container(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cgroup, "cores", lambda: quota)
    assert machine.core_count() == cores
    total = psutil.virtual_memory().total
    for limit, expected in ((GIB // 2, 0.5), (None, total / GIB), (2**63 - 1, total / GIB)):
        monkeypatch.setattr(cgroup, "memory", lambda limit=limit: limit)
        assert machine.memory_gib() == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_read_without_a_lock(tmp_path, monkeypatch):
    """A worker may be killed meanwhile, and the user's next `git commit` would find the lock."""
    file = tmp_path / "bench" / "core" / "machine.py"
    file.parent.mkdir(parents=True)
    file.touch()
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    os.utime(file, (1, 1))  # git would look, find it unchanged, and note that in its index
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    monkeypatch.setattr(machine, "__file__", str(file))
    found = machine.commit.__wrapped__()
    assert len(found["commit"]) == 40
    assert not found["dirty"]
    assert index.read_bytes() == before


def test_a_record_says_whether_networks_were_compiled(monkeypatch):
    assert machine.describe("cpu", "fp32", 1, 1)["compiled"] is False
    monkeypatch.setenv("BENCH_TORCH_COMPILE", "on")
    assert machine.describe("cpu", "fp32", 1, 1)["compiled"] is True


@pytest.mark.parametrize("wanted", ["measured", "all", "off"])
def test_a_record_says_which_steps_were_cuda_graphs(monkeypatch, wanted):
    """Two records of one GPU, of which one launched every kernel, took other seconds."""
    monkeypatch.setenv("BENCH_CUDA_GRAPHS", wanted)
    monkeypatch.setattr(machine, "accelerator", lambda device: "NVIDIA H100")
    assert machine.describe("cuda", "bf16", 1, 1)["cuda_graphs"] == wanted
    assert machine.describe("cpu", "fp32", 1, 1)["cuda_graphs"] is None
