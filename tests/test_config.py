"""The table of options: what is valid, what is said, what enters the cache key."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest

from torch_aio import banner, config, log, num_threads
from torch_aio.errors import ConfigError

ROWS = {option.name: option for option in config.OPTIONS}


@pytest.fixture(autouse=True)
def _clean(monkeypatch, notices):
    for name in [*os.environ]:
        if name.startswith("AIO_") or name == "OMP_NUM_THREADS":
            monkeypatch.delenv(name)
    yield
    monkeypatch.undo()
    config.read()


def read(monkeypatch, **variables):
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return config.read()


def test_each_row_is_an_attribute_with_the_default():
    settings = config.read()
    for option in config.OPTIONS:
        assert getattr(settings, option.attribute) == option.default, option.name
    assert len(ROWS) == len(dataclasses.fields(settings)) - 1
    assert settings.given == frozenset()


def test_the_table_holds_every_variable_of_the_product():
    assert set(ROWS) >= {
        "AIO_PROCESS_MODE", "AIO_NUM_THREADS", "AIO_CPU_BIND", "AIO_MEM_BIND", "AIO_NUMA_CPUS",
        "AIO_DEBUG_MODE", "AIO_IMPLICIT_FP16_TRANSFORM_FILTER", "AIO_QUANTIZE_INT8_FILTER",
        "AIO_QUANTIZE_INT8", "AIO_QUANTIZE_INT8_CONVERT_OUT_DTYPE", "AIO_MERGE_LINEAR",
        "AIO_SKIP_MASTER_THREAD", "AIO_PROFILER",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("AIO_PROCESS_MODE", "0", False),
        ("AIO_NUM_THREADS", "16", 16),
        ("AIO_NUMA_CPUS", "0 1 5", (0, 1, 5)),
        ("AIO_DEBUG_MODE", " 4 ", 4),
        ("AIO_IMPLICIT_FP16_TRANSFORM_FILTER", ".*", ".*"),
        ("AIO_QUANTIZE_INT8", "all", "ALL"),
        ("AIO_QUANTIZE_INT8_CONVERT_OUT_DTYPE", "FP16", "FP16"),
        ("AIO_SKIP_MASTER_THREAD", "1", True),
        ("AIO_TUNE", "off", "off"),
        ("AIO_CACHE_DIR", "/tmp/x", "/tmp/x"),
        ("AIO_FUEL", "0", 0),
        ("AIO_CPU_BIND", "", True),
    ],
)
def test_values_are_parsed(monkeypatch, name, text, value):
    settings = read(monkeypatch, **{name: text})
    assert getattr(settings, ROWS[name].attribute) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AIO_PROCESS_MODE", "yes"),
        ("AIO_NUM_THREADS", "0"),
        ("AIO_NUM_THREADS", "-1"),
        ("AIO_NUM_THREADS", "1e3"),
        ("AIO_NUM_THREADS", "99999"),
        ("AIO_NUMA_CPUS", "0,1"),
        ("AIO_NUMA_CPUS", "1 1"),
        ("AIO_DEBUG_MODE", "5"),
        ("AIO_IMPLICIT_FP16_TRANSFORM_FILTER", "("),
        ("AIO_QUANTIZE_INT8", "SOME"),
        ("AIO_TUNE", "maybe"),
        ("AIO_FUEL", "-3"),
        ("AIO_CACHE_DIR", "~nobody-of-this-name/x"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_variable_value_and_what_is_valid(
    monkeypatch, name, text
):
    with pytest.raises(ConfigError) as caught:
        read(monkeypatch, **{name: text})
    for part in (name, repr(text), ROWS[name].kind.valid):
        assert part in str(caught.value)


def test_settings_are_read_late_and_parsed_only_when_they_changed(monkeypatch):
    before = config.read()
    assert config.read() is before
    assert read(monkeypatch, AIO_NUMA_CPUS="0").numa_cpus == (0,)
    start = time.perf_counter()
    for _ in range(100):
        config.read()
    assert (time.perf_counter() - start) / 100 < 200e-6


def test_thread_counts_that_contradict_each_other_are_an_error(monkeypatch):
    with pytest.raises(ConfigError, match="AIO_NUM_THREADS=2 contradicts OMP_NUM_THREADS=4"):
        read(monkeypatch, AIO_NUM_THREADS="2", OMP_NUM_THREADS="4")


@pytest.mark.parametrize("omp", ["2", "2,1", " 2", "", "nonsense"])
def test_thread_counts_that_agree_are_none(monkeypatch, omp):
    assert read(monkeypatch, AIO_NUM_THREADS="2", OMP_NUM_THREADS=omp).num_threads == 2


def test_an_unknown_variable_is_one_warning_with_the_nearest_name(monkeypatch, notices):
    read(monkeypatch, AIO_NUM_THREAD="2")
    read(monkeypatch, AIO_STRICT="1")
    warned = [r.getMessage() for r in notices.records]
    assert warned == ["AIO_NUM_THREAD is no variable of torch-aio; did you mean AIO_NUM_THREADS?"]


def test_the_old_spelling_of_the_int8_filter_warns_and_means_all(monkeypatch, notices):
    settings = read(monkeypatch, AIO_QUANTIZE_INT8="ALL")
    assert settings.int8_filter == ".*"
    assert "old spelling" in notices.text


@pytest.mark.parametrize(
    "option", [o for o in config.OPTIONS if not o.in_effect], ids=lambda o: o.name
)
def test_a_feature_to_come_is_said_once_and_only_where_it_is_asked_for(
    monkeypatch, notices, option
):
    asked = {"": ".*", "off": "fast", False: "1", None: "0 1"}[option.later]
    asked = "FP16" if option.name.endswith("OUT_DTYPE") else asked
    monkeypatch.setenv(option.name, asked)
    config.read()
    read(monkeypatch, AIO_STRICT="1")
    assert [r.getMessage() for r in notices.records] == [f"{option.name} is not yet in effect"]
    log.forget_notices()
    notices.clear()
    monkeypatch.setenv(option.name, {False: "0", None: ""}.get(option.later, option.later))
    config.read()
    assert not notices.records


@pytest.mark.parametrize(
    ("level", "shown"), [(0, ""), (1, "e"), (2, "eiw"), (3, "deiw"), (4, "deitw")]
)
def test_the_level_decides_what_is_shown(monkeypatch, capsys, level, shown):
    monkeypatch.setattr(log.logger, "propagate", False)  # as where the program set up no logging
    read(monkeypatch, AIO_DEBUG_MODE=str(level))
    for say in (log.debug, log.error, log.info, log.trace, log.warning):
        say("%s", say.__name__[0])
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == list(shown)


def test_the_banner_names_version_settings_and_platform(monkeypatch, notices):
    settings = read(monkeypatch, AIO_NUM_THREADS="16", OMP_NUM_THREADS="16")
    lines = banner.banner(settings).splitlines()
    assert lines[0].startswith("torch-aio ")
    assert lines[1:5] == [
        "AIO_PROCESS_MODE:  1", "AIO_NUM_THREADS:  16", "CPU_BIND:  1", "MEM_BIND:  1",
    ]  # fmt: skip
    assert lines[5].startswith("PlatformInfo(vendor_id=")


def test_the_banner_is_shown_at_the_first_compile_only(notices):
    banner.at_first_compile()
    banner.at_first_compile()
    assert notices.text.count("PlatformInfo(") == 1


def test_a_thread_count_is_given_to_pytorch_once(monkeypatch):
    """torch.set_num_threads after AIO_NUM_THREADS was obeyed has the last word."""
    given = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr(num_threads, "_applied", None)
    settings = read(monkeypatch, AIO_NUM_THREADS="3")
    num_threads.apply(settings)
    num_threads.apply(settings)
    num_threads.apply(read(monkeypatch, AIO_NUM_THREADS="4"))
    assert given == [3, 4]


def test_options_fall_back_to_the_settings(monkeypatch):
    read(monkeypatch, AIO_STRICT="1", AIO_CACHE_DIR="/tmp/x", AIO_WINOGRAD="0")
    options = config.Options.from_mapping({"modelname": "bert", "winograd": "auto"})
    assert (options.modelname, options.strict, options.winograd) == ("bert", True, True)
    assert options.cache_dir == "/tmp/x"
    assert config.Options.from_mapping() == config.Options.from_mapping({})


def test_an_unknown_option_is_an_error_that_lists_the_valid_ones():
    with pytest.raises(ConfigError) as caught:
        config.Options.from_mapping({"model_name": "x"})
    assert "did you mean 'modelname'?" in str(caught.value)
    for field in dataclasses.fields(config.Options):
        assert field.name in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("modelname", 3),
        ("strict", "yes"),
        ("fp16_filter", "("),
        ("winograd", 2),
        ("winograd", "on"),
        ("cache_dir", 1),
    ],
)
def test_a_wrong_option_value_is_an_error(key, value):
    with pytest.raises(ConfigError, match=f"option {key}="):
        config.Options.from_mapping({key: value})


@pytest.mark.parametrize(
    ("name", "text", "bound"),
    [
        ("OMP_PROC_BIND", "false", False),
        ("OMP_PROC_BIND", "close", True),
        ("OMP_PLACES", "cores", True),
        ("GOMP_CPU_AFFINITY", "0-3", True),
    ],
)
def test_openmp_binding_is_seen(monkeypatch, name, text, bound):
    monkeypatch.setenv(name, text)
    assert config.openmp_binds() is bound
