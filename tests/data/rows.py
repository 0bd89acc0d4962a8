"""What the tests of files share."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from dots_jax.data import sources


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path, *rows):
    """What is read of a file with these rows, or with this text or these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif rows and isinstance(rows[0], str | bytes):
        path.write_bytes(rows[0] if isinstance(rows[0], bytes) else rows[0].encode())
    else:
        write(path, rows)
    return [(row["problem"], row["answer"]) for row in sources.rows(str(path), {}, "")[0]]
