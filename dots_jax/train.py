"""The training loop: choose questions, roll out, grade, update, replaying earlier rollouts.

Read `train` from top to bottom; it is the algorithm. Tokens, log-probs, parameters and the buffer stay on the device:
only token ids come to the host, to be graded, and only rewards go back. Each phase ends when its work is done on the
device, so that the ledger's seconds are those of the phase; at real scale a phase takes seconds and the wait nothing.
"""

import collections
import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax import data, evaluate, learner, metrics, policy, progress, reward, rng, rollout, selection, settings
from dots_jax import workdir as workdirs
from dots_jax.checkpoint import Checkpointer, abstract
from dots_jax.difficulty import embed, measures
from dots_jax.distributed import barrier, from_main, is_main, main_only, to_host
from dots_jax.errors import UserError
from dots_jax.learner import replay
from dots_jax.ledger import Ledger
from dots_jax.policy import sharding
from dots_jax.policy import tokenizer as tok
from dots_jax.runtime import compilation_cache, full_precision
from dots_jax.validate import check_loaded


def train(config, workdir: str) -> None:
    """Runs the experiment, or continues the one in `workdir`. Raises UserError for what the user can mend."""
    with main_only(workdirs.Claim)(workdir) as claim:
        _train(config, workdir, claim)


def _train(config, workdir: str, claim: workdirs.Claim) -> None:
    # ---- What is already there ---------------------------------------------------------------------------------
    settings.same_run(config, workdir)
    start, bad = workdirs.last_step(workdir) if is_main() else (0, {})
    start, steps = int(from_main(lambda: np.int32(start), np.int32(0))), config.train.steps
    if start >= steps:
        said = f"the run in {workdir} is finished ({start} steps); raise --config.train.steps or use another --workdir"
        main_only(print)(said)
        return main_only(_show_results)(workdir)

    # ---- Policy, questions, and all that a step reads ----------------------------------------------------------
    ledger = Ledger()
    mesh = sharding.make_mesh(**config.mesh)
    full_precision(config.policy.dtype)
    if config.policy.random.width:
        claim.take()
    directory, export = settings.policy(config, workdir), os.path.join(workdir, "policy")
    if os.path.realpath(directory) in (os.path.realpath(workdir), os.path.realpath(export)):
        raise UserError(
            f"config.policy.path={directory} lies where --workdir={workdir} would write; use another workdir"
        )
    policy.check_target(export)
    model, params = policy.load(directory, mesh, jnp.dtype(config.policy.dtype))
    if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(params)):
        raise UserError(f"the weights in {directory} hold NaN or infinity; use another policy")
    tokenizer = tok.load(directory)
    pool, heldout = data.load(config, tokenizer)
    prompts, lengths = tok.encode(tokenizer, pool.texts, config.data.max_prompt_tokens, config.data.system)
    exam, exam_lengths = tok.encode(tokenizer, heldout.texts, model.max_positions - 1, config.data.system)
    exam_rows = heldout.rows()
    hyper = learner.Hyper(**config.learner, temperature=config.rollout.temperature)
    rule = replay.Rule(config.train.questions, config.selection.every, **config.replay)
    check_loaded(config, rule, sharding.num_row_shards(mesh), model, prompts.shape[1], len(pool))
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=sharding.replicated(mesh))()
    grader = reward.make(config.reward)
    answers, exam_answers = (reward.against(config.reward, questions) for questions in (pool, heldout))
    readable = reward.readable(grader, answers)
    sampling = {
        "max_tokens": config.rollout.max_tokens,
        "stop_ids": tok.stop_ids(directory, tokenizer),
        "chunk": config.rollout.chunk,
        "slots": config.rollout.slots,
        "mesh": mesh,
    }

    state = learner.init_state(params, model, hyper, mesh)
    size = {"group_size": config.rollout.group_size, "max_tokens": config.rollout.max_tokens}
    make_buffer = functools.partial(replay.init, rule.slots, prompt_tokens=prompts.shape[1], **size, mesh=mesh)
    buffer = make_buffer() if rule.draws else None
    reference = jax.tree.map(jnp.copy, params) if hyper.kl else None
    del params
    embedder = settings.embedder(config, directory)
    rests_on = {"predictor": config.predictor.path, "embeddings": embedder if embedder != directory else ""}
    prints = main_only(settings.fingerprints)(directory, rests_on, pool=pool, evaluation_set=heldout)
    main_only(settings.same_inputs)(prints, workdir)
    run = settings.identity(config, prints) if is_main() else ""
    checkpoints = Checkpointer(os.path.join(workdir, workdirs.CHECKPOINTS), config.train.keep, run)
    context = selection.Context(
        num_questions=len(pool),
        labels=pool.levels if pool.labels is None else pool.labels,
        embeddings=lambda: embed.load(embedder, pool.texts, config.embedding, mesh),
        steps=steps,
        mesh=mesh,
        key=rng.stream(key, rng.Purpose.SELECTION, 0),
    )
    with ledger.phase("score"):
        selector = selection.make(config, context)
    selected = selector.init()
    # The round's questions, and their difficulty once measured; NaN for those that had been measured before.
    chosen = np.zeros((config.selection.every, config.train.questions), np.int32)
    measured = np.full(chosen.shape, np.nan, np.float32)
    emptied = False
    if start:
        main_only(workdirs.set_aside)(workdir, bad, start)
        saved = abstract(_resumable(state, buffer, selected, chosen, measured, ledger))
        del state, selected, buffer  # on the device there may be room for one
        saved = checkpoints.restore(start, saved, optional="buffer/" if config.train.empty_buffer else None)
        state, selected, chosen, measured = (saved[name] for name in ("state", "selected", "chosen", "measured"))
        ledger, buffer = Ledger.from_state(saved["ledger"]), saved.pop("buffer")
        if rule.draws:
            emptied = buffer.ids is None
            buffer = make_buffer() if emptied else replay.cut(buffer, mesh)
    barrier("all have read what is there")
    claim.take()
    main_only(data.write)(pool, workdir, lengths, readable)
    main_only(settings.write_config)(config, workdir, prints)
    if start:
        main_only(shutil.rmtree)(export, ignore_errors=True)  # of an earlier end
    log, groups = main_only(metrics.Metrics)(workdir), main_only(metrics.Lines)(os.path.join(workdir, metrics.GROUPS))
    for file in (log, groups):
        file.truncate(start if start else -1)
    settings.check_shared(workdir)
    most = max(rule.fresh_groups(step) for step in range(start + 1, steps + 1))
    main_only(progress.first_screen)(
        config_name=config.name,
        method=f"{'GRPO-RR' if buffer else 'GRPO'}, {config.selection.name} selection"
        + (" (its cost is not counted)" if selector.uncounted else "")
        + (f", {rule.draws} of {rule.questions} groups replayed" if buffer else "")
        + (", starts with an empty buffer" if emptied else ""),
        backend=jax.default_backend(),
        devices=mesh.size,
        mesh=" x ".join(f"{name} {size}" for name, size in mesh.shape.items())
        + (f", of {jax.process_count()} processes" if jax.process_count() > 1 else ""),
        reward=reward.ABOUT[config.reward],
        policy_path=config.policy.path,
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        dtype=config.policy.dtype,
        pool=data.describe(pool, lengths, readable),
        heldout=data.describe(heldout, exam_lengths),
        steps=steps,
        start_step=start,
        tokens_per_step=most * config.rollout.group_size * config.rollout.max_tokens,
        workdir=workdir,
        compiled=compilation_cache(),
        resumed=start > 0,
    )
    recent = collections.deque(maxlen=-(-64 // config.selection.references))  # reference sets judged together
    seen = np.zeros(len(pool), bool)  # questions measured so far; predictions are judged on others
    for group in metrics.read(workdir, metrics.GROUPS):
        if "asked_predicted" in group:
            recent.append(_references(group, seen))
        seen[group["ids"] + group.get("asked", [])] = True
    bar = main_only(progress.Progress)(steps, start, round_steps=config.selection.every)
    bar.stage("compiling")

    def held_out(step, rows, samples, **how):
        draw = rng.stream(key, rng.Purpose.EVALUATION, step)
        questions = (tokenizer, exam[rows], exam_lengths[rows], [exam_answers[i] for i in rows], grader)
        with ledger.phase("evaluation"):
            found = evaluate.run(
                state.params, model, *questions, draw, samples=samples, batch=config.eval.batch, **how, **sampling
            )
        ledger.add_tokens("evaluation", generated=found.lengths.sum())
        success = np.bincount(rows, found.rewards.mean(1)) / np.bincount(rows)
        return success, evaluate.shares(found.verdicts)

    def evaluation(step):
        how = {name: config.eval[name] for name in ("samples", "temperature", "top_p")}
        success, verdicts = held_out(step, exam_rows, **how)
        row = {"eval/accuracy": evaluate.accuracy(success, heldout), "eval/verdicts": verdicts}
        row["eval/by_level"] = evaluate.by_level(success, heldout)
        if heldout.names:
            sets = evaluate.by_set(heldout).items()
            samples = config.eval.samples * np.bincount(exam_rows)
            row["eval/intervals"] = {name: evaluate.interval(success[i], samples[i].mean()) for name, i in sets}
        if config.eval.greedy and step in (0, steps):
            success, _ = held_out(step, np.arange(len(heldout)), 1, temperature=0.0)
            row["eval/greedy_accuracy"] = evaluate.accuracy(success, heldout)
        return row

    def roll_out(ids, phase, purpose, step):
        """G completions of each question and their rewards, graded as they end; booked to `phase`."""
        with ledger.phase(phase):
            grading = evaluate.Grading(grader, tokenizer, [answers[i] for i in ids], config.rollout.group_size)
            rollouts = rollout.sample(
                state.params,
                model,
                prompts[ids],
                lengths[ids],
                rng.stream(key, purpose, step),
                config.rollout.group_size,
                temperature=config.rollout.temperature,
                watch=grading.watch if grader.slow else None,
                **sampling,
            )
            graded = grading.finish(rollouts)()
        ledger.add_tokens(phase, generated=graded.lengths.sum())
        return rollouts, graded.rewards, graded.verdicts

    def judge(prefix, predicted, difficulty):
        """How well difficulty was predicted before it was measured."""
        report = measures.report(predicted, difficulty, config.selection.target)
        return {prefix + name: value for name, value in report.items()}

    # ---- The loop ----------------------------------------------------------------------------------------------
    for step in range(start + 1 if start else 0, steps + 1):
        if step == 0:
            row = evaluation(0)
        else:
            row, group = {}, {"rollouts": config.rollout.group_size}
            place = (step - 1) % config.selection.every
            if place == 0:
                # A selection round: measure what the selector asks for, then let it choose.
                draw = rng.stream(key, rng.Purpose.SELECTION, step)
                asked, known = selector.ask(selected, draw), selector.predict(selected)
                if len(asked):
                    phase = "uncounted" if selector.uncounted else "reference"
                    references, found, _ = roll_out(asked, phase, rng.Purpose.REFERENCE, step)
                    selected = selector.observe(selected, asked, found.sum(1), found.shape[1], step, asked=True)
                    group |= {"asked": asked, "asked_successes": _sums(found)}
                    if known and step > 1:  # not yet fitted to them
                        group["asked_predicted"] = known[0][asked]
                        recent.append(_references(group, seen))
                        row |= judge("predictor/reference_", *np.concatenate(recent, axis=1))
                    seen[asked] = True
                with ledger.phase("score"):
                    counts = np.array([rule.fresh_groups(step + i) for i in range(config.selection.every)])
                    proposed, selected = selector.propose(selected, draw, counts.sum(), step)
                chosen, measured = np.zeros_like(chosen), np.full_like(measured, np.nan)
                chosen[np.arange(rule.questions) < counts[:, None]] = proposed
            fresh = rule.fresh_groups(step)
            ids, known = chosen[place, :fresh], selector.predict(selected)

            # Rollouts: G completions of each, and their verdicts. Some groups may exist already.
            reused = selector.reuse if place == 0 else 0
            rollouts, rewards, verdicts = roll_out(ids[reused:], "fresh", rng.Purpose.ROLLOUT, step)
            selected = selector.observe(selected, ids[reused:], rewards.sum(1), rewards.shape[1], step, asked=False)
            if reused:
                taken = np.array([np.flatnonzero(asked == i)[0] for i in ids[:reused]])
                rollouts = rollout.join(references, taken, rollouts)
                rewards = np.concatenate([found[taken], rewards])
            measured[place, :fresh] = np.where(seen[ids], np.nan, 1 - rewards.mean(1))
            seen[ids] = True
            group |= {"ids": ids, "successes": _sums(rewards)}
            if known:
                group["predicted"] = known[0][ids]
                if place == 0:
                    group["pool"] = np.histogram(known[0].clip(0, 1), 20, (0, 1))[0]
                if place == config.selection.every - 1:  # the whole round
                    new = np.isfinite(measured)
                    row |= judge("predictor/", known[0][chosen[new]], measured[new])

            # Update: draw from the buffer, advantages, clipped loss, optimizer steps, insertion, in one jitted call.
            with ledger.phase("update"):
                *graded, count = jax.device_put((rewards, ids, np.int32(fresh)), sharding.replicated(mesh))
                batch = (rollouts, *graded)
                with jax.transfer_guard("disallow"):
                    if buffer:
                        batch = replay.spread(batch, rule.questions, sharding.num_row_shards(mesh))
                    state, buffer, info = learner.update(
                        state, buffer, *batch, count, key, model, hyper, mesh, rule, reference
                    )
                info = to_host(info)
            ledger.add_tokens("update", trained=info.pop("tokens"), scored=info.pop("scored"))
            _finite(info, step, checkpoints)
            replayed = info.pop("replay", {})
            if replayed:
                group |= {"replayed": replayed.pop("ids"), "replayed_from": replayed.pop("steps")}
            row |= {
                "train/reward": rewards.mean(),
                "train/useful_groups": learner.mixed(rewards).mean(),
                "train/completion_tokens": float(rollouts.lengths.mean()),
                "train/truncated": 1 - float(rollouts.finished.mean()),
                **{f"verdicts/{name}": share for name, share in evaluate.shares(verdicts).items()},
                **{f"train/{name}": value for name, value in info.items()},
                **{f"replay/{name}": value for name, value in replayed.items()},
            }
            if step % config.train.eval_every == 0 or step == steps:
                row |= evaluation(step)
            groups.write(step, group)
        row = ledger.metrics() | row
        log.write(step, row)
        bar.update(step, row)
        if step == steps:  # before the checkpoint that makes the run a finished one
            policy.save(export, model, state.params, tokenizer_dir=directory)
            selector.save(selected, workdir)
        if step and (step % config.train.checkpoint_every == 0 or step == steps):
            lines = {metrics.FILE: log.lines.sum, metrics.GROUPS: groups.sum}
            checkpoints.save(step, _resumable(state, buffer, selected, chosen, measured, ledger), lines)

    bar.close()
    log.close()
    groups.close()
    checkpoints.close()
    grader.close()
    return main_only(_show_results)(workdir)


def _resumable(state, buffer, selected, chosen, measured, ledger) -> dict:
    """All that the next step reads."""
    return {
        "state": state,
        "buffer": buffer and replay.flat(buffer),
        "selected": selected,
        "chosen": chosen,
        "measured": measured,
        "ledger": ledger.to_state(),
    }


def _sums(rewards: np.ndarray) -> np.ndarray:
    """Of each group [P, G]: whole numbers, where rewards are verdicts."""
    sums = rewards.sum(1)
    return sums.astype(int) if (sums % 1 == 0).all() else sums


def _references(group: dict, seen: np.ndarray) -> np.ndarray:
    """Predicted and then measured difficulty of a round's references that are not `seen`, float32 [2, K or less]."""
    pairs = np.array([group["asked_predicted"], 1 - np.array(group["asked_successes"]) / group["rollouts"]], np.float32)
    return pairs[:, ~seen[group["asked"]]]


def _finite(info: dict, step: int, checkpoints: Checkpointer) -> None:
    if not np.isfinite([info["loss"], info["grad_norm"], info["entropy"]]).all():
        checkpoints.wait()
        last = checkpoints.latest()
        kept = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
        raise UserError(
            f"step {step}: not finite: loss {info['loss']}, gradient norm {info['grad_norm']}, entropy "
            f"{info['entropy']}; {kept}; try a lower --config.learner.learning_rate in another --workdir"
        )


def _show_results(workdir: str) -> None:
    """Draws the curves and prints what was learned, from the metrics alone."""
    metrics.draw_curves(workdir)
    rows = metrics.read(workdir)
    exams = [row for row in rows if row.get("eval/accuracy") is not None]
    first, last = exams[0], exams[-1]
    after = last["eval/by_level"]
    progress.last_screen(
        before=first["eval/accuracy"],
        greedy=(first.get("eval/greedy_accuracy"), last.get("eval/greedy_accuracy")),
        after=last["eval/accuracy"],
        families={name: list(zip(cells, after[name], strict=True)) for name, cells in first["eval/by_level"].items()},
        seconds=rows[-1]["seconds"],
        compile_seconds=rows[-1]["ledger/seconds_compile"],
        generated_tokens=rows[-1]["ledger/generated_tokens"],
        workdir=workdir,
        export=os.path.join(workdir, "policy") if os.path.isdir(os.path.join(workdir, "policy")) else None,
    )
