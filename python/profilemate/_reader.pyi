from typing import Any

def resolve(meant: bytes | None, dir: bytes | None, /) -> bytes: ...
def describe(path: bytes | None, /) -> dict[str, Any]: ...
def report(path: bytes | None, /) -> str: ...
def columns(path: bytes | None, table: bytes, /) -> list[tuple[str, str, str, str]]: ...
def stream(
    path: bytes | None,
    table: bytes,
    last: bytes | None,
    steps: bytes | None,
    request: bytes | None,
    batch_rows: int = 0,
    /,
) -> object: ...
def schema(
    path: bytes | None,
    table: bytes,
    last: bytes | None,
    steps: bytes | None,
    request: bytes | None,
    batch_rows: int = 0,
    /,
) -> object: ...
def survey(path: bytes | None, /) -> dict[str, Any]: ...
def notes(path: bytes | None, /) -> list[str]: ...
def settled(path: bytes | None, table: bytes, source: bytes, from_: int, /) -> int: ...
def part(
    path: bytes | None,
    table: bytes,
    source: bytes,
    from_: int,
    to: int,
    columns: list[bytes] | None,
    batch_rows: int,
    /,
) -> object: ...
