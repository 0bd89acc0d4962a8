"""A difficulty predictor trained offline on some thousand labels; `difficulty_fit.py:paper` is the paper's recipe."""

from ml_collections import ConfigDict

from dots_jax.core.errors import UserError


def get_config(recipe: str = "small"):
    """Fields of `python -m dots_jax.difficulty.fit`."""
    c = ConfigDict()
    c.seed = 0  # of the split, the initial weights and every draw
    c.rates = ""  # parquet file with columns problem, policy, success_rate (and rollouts); also --rates=FILE
    c.embeddings = ""  # .npy [number of distinct problems, D], in order of first appearance; also --embeddings=FILE
    c.features = True  # also ridge and kernel ridge regression that see the text; the predictor never does
    c.folds = (
        5  # of the policies, each held out in turn, with a predictor of its own; 0: leave-policies-out is left out
    )
    c.references = 256  # measured questions that a prediction attends to, in training and in the report (M)
    c.calibration = "code"  # code | paper | none
    c.refit = True  # least-squares line through the references: released code True, paper False
    c.batch = 256  # labels per optimizer step
    c.learning_rate = 1e-3
    c.epochs = 40  # of the schedule; paper 20
    c.patience = 10  # epochs without a better validation Pearson, after which the training stops; paper: none

    # On some thousand labels the paper's recipe is at its best after a few epochs and then fits their noise.
    c.width = 128  # of both towers; paper 896, which is ten times slower
    c.dropout = 0.0  # paper 0.1
    c.noise = 0.7  # a query in training moves by up to this much times the difference of two others; paper 0
    c.average = 0.98  # decay of the running average of the weights, which is what is judged and kept; paper 0
    c.teacher = 1.0  # share of kernel ridge regression's prediction in a training label; paper 0
    if recipe == "paper":
        c.width, c.dropout, c.noise, c.average, c.teacher = 896, 0.1, 0.0, 0.0, 0.0
        c.epochs = c.patience = 20
    elif recipe != "small":
        raise UserError(f"no recipe {recipe!r} in configs/difficulty_fit.py; choose one of: paper, small")
    return c
