"""The supervised warm start of the quickstart's policy, and of countdown's."""

from ml_collections import ConfigDict


def get_config(task: str = "arithmetic"):
    """A 0.3M-parameter Qwen2.5 and how long it sees which levels of `arithmetic` or `countdown`."""
    c = ConfigDict()
    c.task = task
    c.seed = 0
    c.model = ConfigDict()
    c.model.width = 96
    c.model.num_layers = 3
    c.model.num_heads = 4
    c.model.num_kv_heads = 2
    c.model.mlp_width = 256
    c.model.rope_theta = 10000.0
    c.model.norm_eps = 1e-6
    c.model.tie_embeddings = True
    c.model.max_positions = 128

    c.num_questions = 4096  # the run's pool and held-out set; the held-out questions are never shown
    c.num_heldout = 512
    c.data_seed = 0
    c.level_weights = (6.0, 5.0, 4.0, 2.5, 1.5, 1.0)  # share of demonstrations by level
    # Text from the web is careless, and the more so the harder the question. The last demonstrations hold mistakes on
    # purpose: the policy then answers by chance what it could answer, and has something to gain from reinforcement.
    c.mistakes = (0.02, 0.08, 0.6, 1.5, 3.0, 4.0)  # wrong digits per demonstration by level, on average
    c.careless_after = 0.7  # share of the steps before them
    c.steps = 2000
    c.batch = 64
    c.learning_rate = 3e-3
    c.warmup = 100
    if task == "countdown":
        c.num_questions, c.num_heldout = 2048, 256
        c.level_weights = (2.0, 2.0, 4.0, 4.0, 4.0, 4.0)
        c.mistakes = (0.2, 0.2, 0.4, 0.4, 0.6, 0.6)  # wrong operations
        c.steps = 3000
    return c
