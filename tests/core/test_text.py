from dots_jax.core import text


def test_columns_of_a_table_are_as_wide_as_their_widest_cell():
    assert text.table([["set", "n", "mean"], ["first", "1,000", ""], ["b", "7", "0.5"]]) == (
        "set        n  mean\n"
        "first  1,000\n"
        "b          7   0.5\n"
    )  # fmt: skip
