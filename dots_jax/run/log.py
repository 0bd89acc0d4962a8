"""What a run leaves and shows: metrics, records of questions, the ledger, checkpoints and screens.

`exp` and `state` are an `Experiment` and a `RunState`, which this room does not know.
"""

import contextlib
import dataclasses
import os
import shutil

import jax
import numpy as np

from dots_jax import data
from dots_jax.core.distributed import barrier, is_main, main_only
from dots_jax.core.errors import UserError
from dots_jax.difficulty import measures
from dots_jax.evaluation import shares
from dots_jax.learner import replay
from dots_jax.policy import huggingface
from dots_jax.run import metrics, mirrors, progress, provenance, screens, settings
from dots_jax.run import workdir as workdirs
from dots_jax.run.checkpoint import Checkpointer, abstract
from dots_jax.run.completions import Completions
from dots_jax.run.ledger import Ledger
from dots_jax.selection.base import Measured
from dots_jax.selection.history import History


class RunLog(contextlib.ExitStack):
    """The workdir's side of a run, as a context; silent where the process is not the main one.

    It touches no file before `begin`, and closes at its end, also at an error, all that has been opened.
    """

    def __init__(self, config, workdir: str, exp, ledger: Ledger, deadline: float | None = None):
        super().__init__()
        self._config, self._workdir, self._exp, self._ledger = config, workdir, exp, ledger
        identity = settings.identity(config, exp.fingerprints) if is_main() else ""
        directory = os.path.join(workdir, workdirs.CHECKPOINTS)
        self._checkpoints = Checkpointer(directory, config.train.keep_checkpoints, identity)
        self._export = os.path.join(workdir, workdirs.EXPORT)
        self._metrics = main_only(metrics.Metrics)(workdir, main_only(mirrors.make)(config, workdir))
        self._records = main_only(metrics.Lines)(os.path.join(workdir, metrics.GROUPS))
        self._kept = main_only(metrics.Lines)(os.path.join(workdir, metrics.COMPLETIONS))
        self._completions = Completions(config.completions, exp)
        self.keep_groups, self.keep_evaluation = self._completions.keep_groups, self._completions.keep_evaluation
        self._progress = main_only(progress.Progress)(exp.steps, exp.replay_spec.interval, **config.reward)
        self._limit = progress.TimeLimit(deadline)
        self.history = History(len(exp.pool), config.selection.references)
        self._record = {}  # of this step, for groups.jsonl
        for part in (exp.grader, self._checkpoints, self._kept, self._records, self._metrics, self._progress):
            self.callback(part.close)  # the last one first

    def begin(self, state, resume: workdirs.ResumePoint, claim: workdirs.Claim):
        """The state to go on from, a checkpoint's or the given one; writes the files and shows the first screen.

        The arrays of a state that is not returned are gone.
        """
        config, workdir, exp, emptied = self._config, self._workdir, self._exp, False
        if resume.step:
            main_only(workdirs.set_aside)(workdir, resume)
            state, emptied = self._restore(state, resume.step)
        barrier("all have read what is there")
        claim.take()
        readable = exp.grader.readable(exp.questions) if is_main() else None  # bool [N], answers that it understands
        main_only(data.write)(exp.pool, workdir, exp.lengths, readable, exp.evaluator.questions)
        main_only(settings.write_config)(config, workdir, exp.fingerprints)
        main_only(provenance.record)(workdir)
        if resume.step:
            main_only(shutil.rmtree)(self._export, ignore_errors=True)  # of an earlier end
        records = resume.past[metrics.GROUPS]
        self._metrics.restart(resume.past[metrics.FILE])
        self._records.restart(records)
        kept = metrics.read(workdir, metrics.COMPLETIONS) if is_main() else []
        kept = [row for row in kept if row["step"] <= resume.step and resume.step]
        self._kept.restart(kept)
        self._completions.restart(kept)
        settings.check_shared(workdir)
        for record in records:
            self.history.add_references(record)
            self.history.add_groups(record)
        main_only(screens.first)(config, exp, state, resume.step, workdir, readable, emptied)
        self._progress.start(resume.step)
        self._limit.note(self._ledger.seconds["compile"], is_step=False)
        return state

    def _restore(self, state, step: int) -> tuple:
        """The state of the step's checkpoint, and whether its buffer had to be left behind."""
        saved = abstract(_saved(state))
        for array in jax.tree.leaves((state.learner, state.buffer)):  # on the device there may be room for one
            array.delete()
        dropped = "buffer/" if self._config.train.empty_buffer else None
        saved = self._checkpoints.restore(step, saved, optional=dropped)
        self._ledger.restore(saved.pop("ledger"))
        buffer, emptied = saved["buffer"], False
        if buffer:
            emptied = buffer.ids is None
            saved["buffer"] = self._exp.empty_buffer() if emptied else replay.to_shards(buffer, self._exp.mesh)
        return dataclasses.replace(state, **saved), emptied

    def note_references(self, references: Measured, prediction) -> None:
        """Notes the references of a round and judges what had been predicted of them."""
        self._record |= {
            "rollouts": references.rollouts,
            "reference_ids": references.ids,
            "reference_successes": _whole(references.successes),
            "reference_tokens": references.tokens,
        }
        if prediction and references.step > 1:  # not yet fitted to them
            self._record["reference_predicted"] = prediction[0][references.ids]
        self.history.add_references(self._record)

    def note_discarded(self, groups: Measured) -> None:
        """Notes groups that were rolled out and are not trained on."""
        new = {"ids": groups.ids, "successes": _whole(groups.successes), "tokens": groups.tokens}
        for name, values in new.items():
            self._record[f"discarded_{name}"] = [*self._record.get(f"discarded_{name}", []), *values]
        self._record["discarded_rollouts"] = groups.rollouts

    def note_fresh(self, step: int, fresh, verdicts, prediction, round) -> dict:
        """Notes a step's fresh groups; returns what is measured of them, and how well a whole round was predicted."""
        exp, step_in_round, measured = self._exp, self._exp.step_in_round(step), {}
        ids, rollouts, rewards = fresh.ids, fresh.rollouts, fresh.rewards
        if "reference_predicted" in self._record:
            measured |= self._judge("predictor/reference_", *self.history.references())
        self._record |= {"rollouts": exp.rollout_spec.group_size, "ids": ids, "successes": _whole(rewards.sum(1))}
        self._record["tokens"] = fresh.tokens.mean(1)
        if prediction:
            self._record["predicted"] = prediction[0][ids]
            if step_in_round == 0:
                self._record["pool"] = np.histogram(prediction[0].clip(0, 1), 20, (0, 1))[0]
            if step_in_round == exp.replay_spec.interval - 1:
                new = np.isfinite(round.difficulty)
                measured |= self._judge("predictor/", prediction[0][round.ids[new]], round.difficulty[new])
        self.history.add_groups(self._record)
        return measured | {
            "train/reward": rewards.mean(),
            "train/useful_groups": fresh.mixed.mean(),
            "train/discarded_groups": len(self._record.get("discarded_ids", ())),
            **self._silent(fresh, len(fresh.ids) - len(verdicts)),
            "train/completion_tokens": float(rollouts.lengths.mean()),
            "train/truncated": 1 - float(rollouts.finished.mean()),
            **{f"verdicts/{name}": share for name, share in shares(verdicts).items()},
        }

    def _silent(self, fresh, reused: int) -> dict[str, int]:
        """How many groups were rolled out and paid for in a step, and how many of them have no gradient.

        The first `reused` fresh ones are references, which count once.
        """
        r, again = self._record, set(fresh.ids[:reused].tolist())
        measured = zip(r.get("reference_ids", ()), r.get("reference_successes", ()), strict=True)
        rates = [n / r["rollouts"] for i, n in measured if i not in again and not self._exp.selector.cost_excluded]
        rates += [n / r["discarded_rollouts"] for n in r.get("discarded_successes", ())]
        silent = sum(rate in (0, 1) for rate in rates) + (~fresh.mixed).sum()
        return {"train/groups": len(rates) + len(fresh.ids), "train/silent_groups": int(silent)}

    def note_update(self, step: int, info: dict) -> dict:
        """Books and notes an update; returns its metrics. Raises UserError where the loss is not finite."""
        self._ledger.add_tokens("update", trained=info.pop("tokens"), scored=info.pop("scored"))
        if not np.isfinite([info["loss"], info["grad_norm"], info["entropy"]]).all():
            self._checkpoints.wait()
            last = self._checkpoints.latest()
            kept = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
            raise UserError(
                f"step {step}: not finite: loss {info['loss']}, gradient norm {info['grad_norm']}, entropy "
                f"{info['entropy']}; {kept}; try a lower --config.learner.learning_rate in another --workdir"
            )
        replayed = info.pop("replay", {})
        if replayed:
            self._record |= {"replayed": replayed.pop("ids"), "replayed_from": replayed.pop("steps")}
            self._completions.keep_replayed(self._record["replayed"], self._record["replayed_from"], step)
        return {f"train/{k}": x for k, x in info.items()} | {f"replay/{k}": x for k, x in replayed.items()}

    def write(self, step: int, values: dict) -> None:
        """Writes and shows a step."""
        if step:
            self._records.write(step, self._record)
        for row in self._completions.take():
            self._kept.write(step, row)
        self._record, values = {}, self._ledger.metrics() | values
        self._metrics.write(step, values)
        self._progress.update(step, values)
        self._limit.note(self._ledger.seconds["compile"], is_step=step > 0)

    def save_if_due(self, state, step: int) -> bool:
        """Saves a checkpoint every `checkpoint_every` steps, and the trained policy before the last.

        Returns whether there is no time for another step; it has then saved one.
        """
        exp, time_is_up = self._exp, self._limit.is_up()
        if step == exp.steps:  # before the checkpoint that makes the run a finished one
            directory = exp.policy.directory
            huggingface.save(self._export, exp.policy.model_config, state.learner.params, tokenizer_dir=directory)
            exp.selector.save(state.selector, self._workdir)
        if step % self._config.train.checkpoint_every == 0 or step == exp.steps or time_is_up:
            lines = {metrics.FILE: self._metrics.sum, metrics.GROUPS: self._records.sum}
            self._checkpoints.save(step, _saved(state), lines)
        return time_is_up

    def _judge(self, prefix: str, predicted, difficulty) -> dict:
        report = measures.report(predicted, difficulty, self._config.selection.target)
        return {prefix + name: value for name, value in report.items()}


def _saved(state) -> dict:
    """The state as a checkpoint holds it; the buffer whatever the number of devices."""
    buffer = state.buffer and replay.from_shards(state.buffer)
    return vars(state) | {"buffer": buffer, "ledger": state.ledger.to_state()}


def _whole(sums: np.ndarray) -> np.ndarray:
    """Sums of rewards as whole numbers, where rewards are verdicts."""
    return sums.astype(int) if (sums % 1 == 0).all() else sums
