import json
import time

import jax
import jax.numpy as jnp
import pytest

from dots_jax.run import ledger as module
from dots_jax.run.ledger import PHASES, Ledger

TRACED = "/jax/core/compile/jaxpr_trace_duration"


class Clock:
    """A clock that moves only by `sleep`."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    perf_counter = time

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_compile_clock", None)  # a new one, which has seen no other clock
    return clock


def test_tokens_by_phase_with_evaluation_and_oracle_apart():
    ledger = Ledger()
    for phase, count in {"fresh": 100, "reference": 20, "evaluation": 1000, "cost_excluded": 5000}.items():
        ledger.add_tokens(phase, generated=count)
    ledger.add_tokens("update", trained=90)
    metrics = ledger.metrics()
    assert metrics["ledger/generated_tokens"] == 120
    assert metrics["ledger/evaluation_tokens"] == 1000 and metrics["ledger/cost_excluded_tokens"] == 5000
    assert metrics["ledger/trained_tokens"] == 90
    assert [metrics[f"ledger/generated_{name}"] for name in ("reference", "fresh")] == [20, 100]
    assert metrics["step/generated_fresh"] == 100
    ledger.add_tokens("fresh", generated=7)
    metrics = ledger.metrics()
    assert (metrics["step/generated_fresh"], metrics["ledger/generated_fresh"]) == (7, 107)
    assert metrics["step/generated_reference"] == 0
    with pytest.raises(KeyError), ledger.phase("sleep"):
        pass


def test_what_an_oracle_measures_costs_nothing(clock):
    ledger = Ledger()
    before = ledger.metrics()
    with ledger.phase("cost_excluded"):
        clock.sleep(3)
        jax.jit(lambda x: jnp.tanh(x) * 3)(jnp.ones(3)).block_until_ready()
    metrics = ledger.metrics()
    assert metrics["ledger/seconds_cost_excluded"] == metrics["step/seconds_cost_excluded"] == 3
    assert metrics["seconds"] == before["seconds"] == 0
    assert metrics["ledger/seconds_compile"] == before["ledger/seconds_compile"]


def test_what_the_steps_add_makes_the_total(clock):
    ledger, steps = Ledger(), []
    for _ in range(2):
        with ledger.phase("score"):
            clock.sleep(2)
        steps.append(ledger.metrics())
    for phase in PHASES:
        added = sum(row[f"step/seconds_{phase}"] for row in steps)
        assert added == steps[-1][f"ledger/seconds_{phase}"]
    assert [row["step/seconds_score"] for row in steps] == [2, 2]


def test_phases_nest_and_add_up(clock):
    ledger = Ledger()
    with ledger.phase("fresh"):
        clock.sleep(1)
        with ledger.phase("evaluation"):
            clock.sleep(10)
        clock.sleep(2)
    clock.sleep(4)
    metrics = ledger.metrics()
    assert metrics["seconds"] == 17 == sum(metrics[f"ledger/seconds_{p}"] for p in PHASES if p != "cost_excluded")
    assert metrics["ledger/seconds_fresh"] == 3
    assert metrics["ledger/seconds_evaluation"] == 10
    assert metrics["ledger/seconds_other"] == 4


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


def test_nested_events_count_once(clock):
    ledger = Ledger()
    clock.sleep(8)
    before = ledger.metrics()["ledger/seconds_compile"]
    clock.sleep(8)
    for seconds in (1, 2, 3):  # each began before the one reported ahead of it
        jax.monitoring.record_event_duration_secs(TRACED, seconds)
    assert ledger.metrics()["ledger/seconds_compile"] - before == 3


def test_a_restored_ledger_continues(clock):
    ledger = Ledger()
    with ledger.phase("fresh"):
        clock.sleep(3)
    ledger.add_tokens("fresh", generated=5)
    saved = json.loads(json.dumps(ledger.to_state()))
    same = Ledger().to_state()  # an empty one: keys and types never depend on what was booked
    assert {k: type(v) for k, v in saved.items()} == {k: type(v) for k, v in same.items()}
    clock.sleep(100)  # between the two runs
    again = Ledger()
    again.restore(saved)
    again.add_tokens("fresh", generated=1)
    metrics = again.metrics()
    assert metrics["ledger/generated_tokens"] == 6 and metrics["step/generated_fresh"] == 1
    assert metrics["seconds"] == metrics["ledger/seconds_fresh"] == 3 and metrics["step/seconds_fresh"] == 0
