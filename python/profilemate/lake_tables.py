"""Tables of a lake that are made of what a session says of itself: sessions, processes, expert_load (docs/LAKE.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from profilemate import parts
from profilemate.parts import Source, Survey

__all__ = ["LOAD_SCHEMA", "SCHEMAS", "expert_load", "processes", "sessions"]

_TIME = pa.timestamp("us", tz="UTC")
# Of the configuration, what differs between replicas that were set up alike.
_OF_THE_REPLICA = {"config.num_gpu_blocks", "config.seed", "parallel.data_rank", "parallel.data_master_ip"}


def _fields(*rows: tuple[str, pa.DataType, str, str]) -> list[pa.Field]:
    return [
        pa.field(name, kind, metadata={"unit": unit, "kind": _kind(kind, unit), "description": what})
        for name, kind, unit, what in rows
    ]


def _kind(kind: pa.DataType, unit: str) -> str:
    if kind == _TIME:
        return "time"
    return {"": "id", "ns": "duration"}.get(unit, "count")


_TEXT, _INT, _LONG, _REAL, _FLAG = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()

# Columns that are an attribute of the engine's process: (column, type, unit, attribute, sentence).
_ATTRIBUTES = (
    ("model", _TEXT, "", "model", "As vLLM was given it."),
    ("served_model_name", _TEXT, "", "served_model_name", "By what name clients ask for it; the first of them."),
    ("model_type", _TEXT, "", "model_type", "decoder_only, vision_language, …"),
    ("vllm_version", _TEXT, "", "version.vllm", "vLLM's version."),
    ("torch_version", _TEXT, "", "version.torch", "torch's version."),
    ("python_version", _TEXT, "", "version.python", "Python's version."),
    ("profilemate_version", _TEXT, "", "version.profilemate", "ProfileMate's version."),
    ("device", _TEXT, "", "device", "vLLM's device type."),
    ("forward_clock", _TEXT, "", "forward_clock", "By what forward passes are timed: wall, sync, events."),
    ("clock", _TEXT, "", "clock", "The recorder's clock."),
    ("runner", _TEXT, "", "runner", "Module of the model runner."),
    ("tensor_parallel", _LONG, "", "parallel.tensor", "Size of the tensor-parallel group."),
    ("pipeline_parallel", _LONG, "", "parallel.pipeline", "Size of the pipeline-parallel group."),
    ("data_parallel", _LONG, "", "parallel.data", "Size of the data-parallel group."),
    ("data_rank", _LONG, "", "parallel.data_rank", "This engine's place in it."),
    ("max_num_seqs", _LONG, "requests", "config.max_num_seqs", "Requests that a step may have."),
    ("max_num_batched_tokens", _LONG, "tokens", "config.max_num_batched_tokens", "Tokens that a step may have."),
    ("max_model_len", _LONG, "tokens", "config.max_model_len", "Tokens that a request may have."),
    ("block_size", _LONG, "tokens", "config.block_size", "Tokens of a KV block."),
    ("num_gpu_blocks", _LONG, "blocks", "config.num_gpu_blocks", "KV blocks."),
    ("gpu_memory_utilization", _REAL, "", "config.gpu_memory_utilization", "Share of the device's memory."),
    ("enable_prefix_caching", _FLAG, "", "config.enable_prefix_caching", "Prefix caching is on."),
    ("enable_chunked_prefill", _FLAG, "", "config.enable_chunked_prefill", "Chunked prefill is on."),
    ("async_scheduling", _FLAG, "", "config.async_scheduling", "Asynchronous scheduling is on."),
    ("enforce_eager", _FLAG, "", "config.enforce_eager", "No CUDA graphs, nothing compiled."),
    ("dtype", _TEXT, "", "config.dtype", "Type of the weights."),
    ("kv_cache_dtype", _TEXT, "", "config.kv_cache_dtype", "Type of the KV cache."),
    ("quantization", _TEXT, "", "config.quantization", "Quantization of the weights."),
    ("cudagraph_mode", _TEXT, "", "config.cudagraph_mode", "Which CUDA graphs there are."),
)

_SUMS = ("records", "lost", "recycled", "faults", "hook_calls", "hook_ns")

_SESSIONS = pa.schema(
    _fields(
        ("engine", _INT, "", "Number of the engine, from 0."),
        ("name", _TEXT, "", "The session's name."),
        ("token", _TEXT, "", "32 hex digits, different for every session."),
        ("state", _TEXT, "", "running, ended, killed, empty."),
        ("complete", _FLAG, "", "The server is over, and all that it left is in the lake."),
        ("start", _TIME, "us", "When it started."),
        ("end", _TIME, "us", "The newest moment in its records."),
        ("start_real_ns", _LONG, "ns", "When it started, ns since 1970."),
        ("start_mono_ns", _LONG, "ns", "The same by CLOCK_MONOTONIC."),
        ("end_mono_ns", _LONG, "ns", "The end by CLOCK_MONOTONIC."),
        *((name, kind, unit, what) for name, kind, unit, _, what in _ATTRIBUTES),
        ("config", _TEXT, "", "The configuration and the sizes of the parallel groups, a JSON object."),
        ("config_id", _TEXT, "", "Equal for engines that were configured alike."),
        ("ranks", _INT, "", "Workers of the engine."),
        ("processes", _INT, "", "Processes of the session."),
        ("records", _LONG, "records", "Records held, of all processes."),
        ("lost", _LONG, "records", "Records that found no room."),
        ("recycled", _LONG, "records", "Records that were overwritten."),
        ("faults", _LONG, "", "Failures of the profiler's own."),
        ("hook_calls", _LONG, "calls", "Hooked calls."),
        ("hook_ns", _LONG, "ns", "Time in the profiler, estimated."),
    )
)

_PROCESSES = pa.schema(
    _fields(
        ("pid", _INT, "", "As the process itself sees it."),
        ("role", _TEXT, "", "engine, worker, engine+worker, frontend, …"),
        ("engine", _INT, "", "Data-parallel rank of its engine; null: none."),
        ("rank", _INT, "", "Rank of the worker within its engine; null: none."),
        ("state", _TEXT, "", "running, closed, killed."),
        ("file", _TEXT, "", "Its record file."),
        ("opened", _TIME, "us", "When it began to record."),
        ("closed", _TIME, "us", "When it ended its file; null: it did not."),
        ("records", _LONG, "records", "Records held."),
        ("lost", _LONG, "records", "Records that found no room."),
        ("recycled", _LONG, "records", "Records that were overwritten."),
        ("damaged_segments", _LONG, "", "Segments that cannot be read."),
        ("faults", _LONG, "", "Failures of the profiler's own."),
        ("hook_calls", _LONG, "calls", "Hooked calls."),
        ("hook_ns", _LONG, "ns", "Time in the profiler, estimated."),
        ("attributes", _TEXT, "", "All that it says of itself, a JSON object."),
    )
)

LOAD_SCHEMA = pa.schema(
    _fields(
        ("time", _TIME, "us", "When the counts were written, by the host's wall clock at the session's start."),
        ("engine", _INT, "", "Number of the engine, from 0."),
        ("rank", _INT, "", "Rank of the worker within its engine."),
        ("pid", _INT, "", "Of the worker's process."),
        ("layer", _LONG, "", "Number of the layer."),
        ("layer_name", _TEXT, "", "vLLM's name of the layer."),
        ("experts", _LONG, "experts", "How many the layer has."),
        ("top_k", _LONG, "experts", "Chosen per token."),
        ("expert", _LONG, "", "Number of the expert in the layer."),
        ("selections", _LONG, "selections", "How often it was chosen since the row before of the same expert."),
    )
)


SCHEMAS = {"sessions": _SESSIONS, "processes": _PROCESSES}


def _named(schema: pa.Schema, table: str, of: Survey) -> pa.Schema:
    return schema.with_metadata(
        {
            "profilemate.table": table,
            "profilemate.session": of.name,
            "profilemate.start_real_ns": str(of.start_real_ns),
            "profilemate.start_mono_ns": str(of.start_mono_ns),
        }
    )


def _value(kind: pa.DataType, text: str | None) -> Any:
    """An attribute's text as its column has it; None where it is no such thing."""
    if text is None or kind == _TEXT:
        return text
    try:
        if kind == _FLAG:
            return {"0": False, "1": True}[text]
        return float(text) if kind == _REAL else int(text)
    except (KeyError, ValueError):
        return None


def _us(real_ns: int) -> int:
    return real_ns // 1000


def _config(attributes: dict[str, str]) -> tuple[str, str]:
    chosen = {key: value for key, value in sorted(attributes.items()) if key.startswith(("config.", "parallel."))}
    alike = {key: value for key, value in chosen.items() if key not in _OF_THE_REPLICA}
    return json.dumps(chosen), hashlib.sha256(json.dumps(alike).encode()).hexdigest()[:16]


def sessions(of: Survey, *, complete: bool) -> pa.Table:
    """A row per engine; one without an engine where no scheduler was seen."""
    end_mono_ns = of.last_mono_ns
    common = {
        "name": of.name,
        "token": of.token,
        "state": of.state,
        "complete": complete,
        "start": _us(of.start_real_ns),
        "end": _us(of.start_real_ns + end_mono_ns - of.start_mono_ns),
        "start_real_ns": of.start_real_ns,
        "start_mono_ns": of.start_mono_ns,
        "end_mono_ns": end_mono_ns,
        "processes": len(of.processes),
        **{name: sum(process[name] for process in of.processes) for name in _SUMS},
    }
    shared: dict[str, str] = {}
    for process in of.processes:
        for key, value in process["attributes"].items():
            shared.setdefault(key, value)
    rows = []
    for engine in of.engines or ({"number": None, "process": -1, "ranks": 0, "workers": []},):
        own = [of.processes[i]["attributes"] for i in (*engine["workers"], engine["process"]) if i >= 0]
        attributes = dict(shared)
        for each in own:  # the scheduler's process has the last word
            attributes.update(each)
        config, config_id = _config(attributes)
        row = {name: _value(kind, attributes.get(key)) for name, kind, _, key, _ in _ATTRIBUTES}
        row.update(common, engine=engine["number"], ranks=engine["ranks"], config=config, config_id=config_id)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_named(_SESSIONS, "sessions", of))


def processes(of: Survey) -> pa.Table:
    rows = []
    for process in of.processes:
        row = {name: process[name] for name in _PROCESSES.names if name in process}
        closed = process["closed_mono_ns"]
        row["opened"] = _us(process["opened_real_ns"])
        row["closed"] = _us(closed - process["opened_mono_ns"] + process["opened_real_ns"]) if closed else None
        row["attributes"] = json.dumps(process["attributes"], sort_keys=True)
        for name in ("engine", "rank"):
            row[name] = process[name] if process[name] >= 0 else None
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_named(_PROCESSES, "processes", of))


# ---- expert_load ----

_SELECTIONS = 0  # moe_counts.what: enum pm_moe_what


def _layers(of: Survey, source: Source) -> dict[tuple[int, int], dict[str, Any]]:
    """The layers of the process, by instance and slot."""
    layers: dict[tuple[int, int], dict[str, Any]] = {}
    for each in of.sources:
        if each.table == "moe_layer" and each.name == source.name:
            for batch, _ in parts.batches(of, each, 0, parts.END, rows=4096):
                layers.update({(row["instance"], row["slot"]): row for row in batch.to_pylist()})
    return layers


def _cells(batch: pa.RecordBatch, positions: pa.Array) -> pa.Table:
    """A row for each cell that is not 0, in the order of the records."""
    names = [name for name in batch.schema.names if name[0] == "n" and name[1:].isdigit()]
    pieces = []
    for name in names:
        pieces.append(
            pa.table(
                {
                    **{each: batch.column(each) for each in ("time", "engine", "rank", "pid", "instance", "slot")},
                    "position": positions,
                    "expert": pc.add(batch.column("first"), int(name[1:])),
                    "selections": batch.column(name),
                    "what": batch.column("what"),
                }
            )
        )
    cells = pa.concat_tables(pieces)
    chosen = pc.and_(pc.equal(cells.column("what"), _SELECTIONS), pc.greater(cells.column("selections"), 0))
    return cells.filter(chosen).sort_by([("position", "ascending"), ("expert", "ascending")])


def expert_load(of: Survey, source: Source, start: int, end: int) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Selections of single experts, of a source of moe_counts, with the positions of the records."""
    layers, schema = _layers(of, source), _named(LOAD_SCHEMA, "expert_load", of)
    for batch, positions in parts.batches(of, source, start, end, rows=4096):
        cells = _cells(batch, positions)
        if cells.num_rows == 0:
            continue
        where = list(zip(cells.column("instance").to_pylist(), cells.column("slot").to_pylist(), strict=True))
        found = [layers.get(each, {}) for each in where]
        more = {
            "layer": pa.array([each.get("layer") for each in found], _LONG),
            "layer_name": pa.array([each.get("name") for each in found], _TEXT),
            "experts": pa.array([each.get("experts") for each in found], _LONG),
            "top_k": pa.array([each.get("top_k") for each in found], _LONG),
        }
        columns = [more[name] if name in more else cells.column(name).combine_chunks() for name in schema.names]
        yield pa.RecordBatch.from_arrays(columns, schema=schema), cells.column("position").combine_chunks()
