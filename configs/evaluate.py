"""How `python -m dots_jax.evaluate` asks a policy the evaluation sets; the defaults are the paper's."""

from ml_collections import ConfigDict

from configs.common import SETS, SYSTEM


def get_config():
    """Every field is also a flag of its own, such as --samples=4."""
    c = ConfigDict()
    c.model = ""  # Hugging Face directory, or a name on the hub
    c.family = ""  # its architecture; "": what its config.json names | FILE.py:NAME
    c.sets = SETS  # with commas between; also amc23, aime24, files, folders, owner/dataset[:configuration]:split
    c.questions = 0  # of each set, drawn by the seed; 0: all
    c.samples = 1  # completions per question
    c.temperature = 0.6  # 0: greedy
    c.top_p = 0.95  # mass of the likeliest tokens that are sampled from; 1: all
    c.max_tokens = 3072  # per completion; fewer where the prompt leaves fewer positions
    c.system = SYSTEM  # instruction with each question, through the tokenizer's chat template; "": none
    c.instruction_in = "system"  # its turn: system | user | only_user, as data.instruction_in of configs/common.py
    c.reward = ConfigDict()  # --reward=NAME will do
    c.reward.name = "math"  # how completions are graded: math | exact | proxy | countdown | FILE.py:NAME
    c.reward.answer = "box"  # where math finds the answer: box | marked | last, as in configs/common.py
    c.root = ""  # directory of the question files; "": the environment's DOTS_DATA, else the hub
    c.dtype = "bfloat16"  # of the policy: bfloat16 | float32
    c.batch = 256  # questions at a time; what is lost when it is stopped
    c.chunk = 32  # decode steps between looks at finished rows
    c.slots = 0  # completions decoded at a time, on all devices; 0: as many as they do well with
    c.seed = 0
    c.mesh = ConfigDict()  # devices along each axis; -1 takes what the others leave
    c.mesh.data = -1
    c.mesh.fsdp = 1
    c.mesh.tensor = 1
    return c
