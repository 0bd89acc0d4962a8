"""What has been measured of which question, from the records of `groups.jsonl`."""

import collections

import numpy as np

from dots_jax.core.arithmetic import ceil_div

JUDGED = 64  # references together, at least, on which predictions are judged


class History:
    """Questions measured so far, and how difficulty was predicted of references that had not been."""

    def __init__(self, num_questions: int, num_references: int):
        self.is_measured = np.zeros(num_questions, bool)
        self._references = collections.deque(
            maxlen=ceil_div(JUDGED, max(1, num_references))
        )  # a round's, float32 [2, M]

    def add_references(self, record: dict) -> None:
        """Takes over a round's references."""
        ids = np.asarray(record.get("reference_ids", ()), int)
        if "reference_predicted" in record:
            difficulty = 1 - np.array(record["reference_successes"]) / record["rollouts"]
            pairs = np.array([record["reference_predicted"], difficulty], np.float32)
            self._references.append(pairs[:, ~self.is_measured[ids]])
        self.is_measured[ids] = True

    def add_groups(self, record: dict) -> None:
        """Takes over the questions that were trained on."""
        for name in ("ids", "discarded_ids"):
            self.is_measured[np.asarray(record.get(name, ()), int)] = True

    def references(self) -> np.ndarray:
        """Predicted and measured difficulty of the last rounds' references that were new, float32 [2, M]."""
        return np.concatenate(self._references, axis=1)
