import json
import time

import jax
import jax.numpy as jnp
import pytest

from dots_jax.ledger import PHASES, Ledger


def test_tokens_by_phase_with_evaluation_apart():
    ledger = Ledger()
    ledger.add_tokens("fresh", generated=100)
    ledger.add_tokens("update", generated=20)
    ledger.add_tokens("evaluation", generated=1000)
    ledger.add_tokens("update", trained=90)
    metrics = ledger.metrics()
    assert metrics["ledger/generated_tokens"] == 120
    assert metrics["ledger/evaluation_tokens"] == 1000
    assert metrics["ledger/trained_tokens"] == 90
    with pytest.raises(KeyError), ledger.phase("sleep"):
        pass


def test_phases_nest_and_add_up():
    start = time.perf_counter()
    ledger = Ledger()
    with ledger.phase("fresh"):
        time.sleep(0.05)
        with ledger.phase("evaluation"):
            time.sleep(0.3)
        time.sleep(0.05)
    time.sleep(0.03)
    metrics = ledger.metrics()
    assert metrics["seconds"] == pytest.approx(time.perf_counter() - start, abs=0.05)
    assert metrics["seconds"] == pytest.approx(sum(metrics[f"ledger/seconds_{p}"] for p in PHASES))
    assert 0.1 <= metrics["ledger/seconds_fresh"] < 0.3
    assert metrics["ledger/seconds_evaluation"] >= 0.3
    assert metrics["ledger/seconds_other"] >= 0.03


def test_compilation_is_taken_out_of_the_phase_and_counted_once():
    @jax.jit
    def inner(x):
        time.sleep(0.2)  # runs while tracing: inside the outer function's trace
        return jnp.tanh(x)

    ledger = Ledger()
    x = jnp.ones(3)
    x.block_until_ready()
    before = ledger.metrics()["ledger/seconds_compile"]
    start = time.perf_counter()
    with ledger.phase("update"):
        jax.jit(lambda x: inner(x) + 1)(x).block_until_ready()
    wall = time.perf_counter() - start
    metrics = ledger.metrics()
    compiled = metrics["ledger/seconds_compile"] - before
    assert 0.2 < compiled <= wall
    assert metrics["ledger/seconds_update"] < wall - 0.2


def test_nested_events_count_once():
    ledger = Ledger()
    time.sleep(0.4)
    before = ledger.metrics()["ledger/seconds_compile"]
    event = "/jax/core/compile/jaxpr_trace_duration"
    time.sleep(0.4)
    for seconds in (0.1, 0.2, 0.3):  # each began before the one reported ahead of it
        jax.monitoring.record_event_duration_secs(event, seconds)
    assert ledger.metrics()["ledger/seconds_compile"] - before == pytest.approx(0.3, abs=0.02)


def test_a_restored_ledger_continues():
    ledger = Ledger()
    with ledger.phase("fresh"):
        time.sleep(0.03)
    ledger.add_tokens("fresh", generated=5)
    state = ledger.to_state()
    saved = json.loads(json.dumps(state))
    time.sleep(0.5)
    again = Ledger.from_state(saved)
    again.add_tokens("fresh", generated=1)
    metrics = again.metrics()
    assert metrics["ledger/generated_tokens"] == 6
    assert sum(v for k, v in saved.items() if k.startswith("seconds/")) <= metrics["seconds"] < 0.5
    assert metrics["ledger/seconds_fresh"] == saved["seconds/fresh"]
