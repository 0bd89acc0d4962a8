import pytest

from dots_jax.reward import mathematics


@pytest.fixture(scope="module")
def pool():
    pool = mathematics.Pool(2)
    yield pool
    pool.close()
