"""The machine, as told by trees of files that stand for other machines."""

from __future__ import annotations

import os
import platform

import pytest

from torch_aio import cpu


@pytest.fixture
def machine(tmp_path):
    """Writes the files of a machine below a folder: machine({"proc/cpuinfo": "..."})."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_x86_features_carry_llvms_names():
    found = cpu.x86_features({"flags": "fpu avx2 fma f16c avx512f avx512_vnni avx_vnni sse4_2"})
    assert found >= {"avx2", "fma", "f16c", "avx512f", "avx512vnni", "avxvnni", "sse4.2"}
    assert "avx512_vnni" not in found


def test_arm_features_are_the_bits_of_the_auxiliary_vector():
    """The words of a Neoverse-N1: fp16 and dot product, no SVE, bf16 or i8mm."""
    found = cpu.arm_features(0x10_7DFF | 1 << 9 | 1 << 10, 0)
    assert found == {"fp", "asimd", "atomics", "fphp", "asimdhp", "asimdrdm", "asimddp"}
    assert cpu.arm_features(1 << 22, 1 << 13 | 1 << 14) == {"sve", "i8mm", "bf16"}
    assert [cpu.llvm_feature(name) for name in ("asimddp", "asimdhp", "i8mm", "avx2")] == [
        "dotprod", "fullfp16", "i8mm", "avx2",
    ]  # fmt: skip


@pytest.mark.parametrize("system", ["Darwin", "Windows", "Plan9"])
def test_an_unknown_system_has_no_features_and_no_failure(monkeypatch, system):
    monkeypatch.setattr(platform, "system", lambda: system)
    assert cpu.features.__wrapped__() == frozenset()


def test_a_machine_that_tells_nothing_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu.model(tmp_path).vendor == "unknown"
    assert cpu.caches(tmp_path) == cpu.numa_nodes(tmp_path) == ()
    assert cpu.cpu_limit(tmp_path) is None
    assert cpu.first_threads(None, tmp_path) == tuple(range(os.cpu_count()))


def test_the_model_of_an_altra_is_its_midr(machine):
    info = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
    root = machine({"proc/cpuinfo": info + "CPU architecture: 8\nCPU part\t: 0xd0c\n"})
    assert cpu.model(root) == cpu.Model("ARM", 8, 0xD0C, "neoverse-n1", "neoverse-n1")


def test_the_model_of_an_x86_is_family_and_model(machine):
    info = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon: X\n"
    assert cpu.model(machine({"proc/cpuinfo": info})) == cpu.Model(
        "GenuineIntel", 6, 143, "Xeon: X"
    )


def test_caches_leave_the_instruction_cache_out(machine):
    rows = [
        ("Data", "1", "64K", "0"),
        ("Instruction", "1", "64K", "0"),
        ("Unified", "2", "1M", "0"),
    ]
    rows.append(("Unified", "3", "32768K", "0-79"))
    files = {}
    for n, values in enumerate(rows):
        names = ("type", "level", "size", "shared_cpu_list")
        for name, text in zip(names, values, strict=True):
            files[f"sys/devices/system/cpu/cpu0/cache/index{n}/{name}"] = text + "\n"
    found = [(c.level, c.size, c.line, c.share_count) for c in cpu.caches(machine(files))]
    assert found == [(1, 65536, 64, 1), (2, 1 << 20, 64, 1), (3, 32 << 20, 64, 80)]


def test_numa_nodes_list_their_cpus(machine):
    folder = "sys/devices/system/node"
    root = machine({f"{folder}/online": "0-1", f"{folder}/node0/cpulist": "0-1,4"})
    assert cpu.numa_nodes(root) == ((0, 1, 4), ())


def test_one_thread_of_each_core_is_first(machine):
    """Siblings 0/2 and 1/3; where only 2 and 3 are allowed, they are the first allowed."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = machine({topology.format(n): f"{n % 2},{n % 2 + 2}" for n in range(4)})
    assert cpu.first_threads((0, 1, 2, 3), root) == (0, 1)
    assert cpu.first_threads((1, 2, 3), root) == (1, 2)
    assert cpu.first_threads((2, 3), root) == (2, 3)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2.0),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "max 100000"}, None),
        ({"proc/self/cgroup": "0::/../x", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1.0),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,cpuacct:/job",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense"}, None),
    ],
    ids=["v2", "v2 parent", "v2 max", "v2 namespace", "v1", "v1 none", "garbage"],
)
def test_the_control_groups_limit_is_the_lowest_of_its_path(machine, files, limit):
    assert cpu.cpu_limit(machine(files)) == limit


def test_usable_threads_are_rounded_up_and_at_least_one(machine):
    root = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "10000 100000"})
    assert cpu.usable_threads(root) == 1


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-2,8", (0, 1, 2, 8)), ("3", (3,)), ("", ()), ("0-1,4-5\n", (0, 1, 4, 5)), ("x", ())],
)
def test_kernel_lists(text, numbers):
    assert cpu.parse_list(text) == numbers


def test_this_machine_is_described():
    assert set(cpu.first_threads()) <= set(cpu.affinity())
    assert 1 <= cpu.usable_threads() <= len(cpu.affinity())
    line = cpu.platform_info()
    assert line.startswith("PlatformInfo(vendor_id=")
    assert line.count("(") == line.count(")")
    assert " " not in cpu.identity()
    assert cpu.cache_size(9, 123) == 123
