"""Counting the experts that routers choose, inside graphs: executed in a worker, and only where that was asked for.

The extension carries this source and runs it once per process, in a module of its own (src/probe/moe_graph.c). Two ways:

traced()   for routers that Dynamo compiles (on a CPU): an operation that stays in the graph because it says that it
           changes `handle`. It runs the extension's own counter on the ids' memory.
Device     for routers whose Python runs only while a graph is captured: additions on the device, into tensors made
           before the capture, which a replay repeats. Nothing here waits for the device.
"""

import functools

import torch

_library = None


def _define(count):
    """The operation, once per process; `count` is the extension's. The library lives as long as this module."""
    global _library
    if _library is None:
        library = torch.library.Library("profilemate", "FRAGMENT")
        library.define("count_experts(Tensor topk_ids, Tensor(a!) handle) -> ()")
        library.impl("count_experts", count, "CPU")
        torch.library.register_fake("profilemate::count_experts", lambda topk_ids, handle: None, lib=library)
        _library = library
    return torch.ops.profilemate.count_experts.default


def _both(previous, ours, topk_ids):
    previous(topk_ids)
    ours(topk_ids)


def traced(count, handle, previous):
    """A capture function for a compiled router. The layer goes in as a tensor, so that all layers have one graph."""
    with torch.inference_mode(False):
        label = torch.tensor([handle], dtype=torch.int64, device="cpu")
    ours = functools.partial(_define(count), handle=label)
    return ours if previous is None else functools.partial(_both, previous, ours)


class Device:
    """The counts of one model's layers on its device.

    layers: (experts, top_k, whether pairs are counted) of each. The counts lie one layer after another: a cell per
    expert and one for what does not count, then, with pairs, a cell per (smaller * experts + larger) and one more.
    """

    def __init__(self, device, layers, most_rows):
        device = torch.device(device)
        most_columns = max(top_k for _, top_k, _ in layers)
        sizes = []
        for experts, _, pairs in layers:
            sizes += [experts + 1, experts * experts + 1 if pairs else 0]
        with torch.inference_mode(False):
            whole = {"dtype": torch.int64, "device": device}
            self.counts = torch.zeros(sum(sizes), **whole)
            self.row = torch.arange(most_rows, **whole).unsqueeze(1)
            self.valid = torch.zeros((), **whole)
            self.ones = torch.ones(most_rows * max(most_columns, most_columns * (most_columns - 1) // 2), **whole)
            self.pairs = {k: torch.triu_indices(k, k, 1, device=device) for k in {top_k for _, top_k, _ in layers}}
            self.staging = torch.zeros(sum(sizes), dtype=torch.int64, pin_memory=device.type != "cpu")
        self.event = None if device.type == "cpu" else getattr(torch, device.type).Event()
        self.parts = self.counts.split(sizes)
        self.layers = layers
        self.most_rows = most_rows
        self.reading = False

    def capture(self, n, previous):
        """The capture function of the n-th layer."""
        chosen, together = self.parts[2 * n], self.parts[2 * n + 1]
        experts, top_k, with_pairs = self.layers[n]
        left, right = self.pairs[top_k]

        def capture(topk_ids):
            if previous is not None:
                previous(topk_ids)
            rows = topk_ids.shape[0]
            if rows > self.most_rows or topk_ids.shape[1] < top_k:
                return
            ids = topk_ids[:, :top_k].to(torch.int64)
            counted = (self.row[:rows] < self.valid) & (ids >= 0) & (ids < experts)
            cells = torch.where(counted, ids, experts)
            chosen.scatter_add_(0, cells.reshape(-1), self.ones[: cells.numel()])
            if with_pairs:
                a, b = cells.index_select(1, left), cells.index_select(1, right)
                low, high = torch.minimum(a, b), torch.maximum(a, b)
                both = torch.where((high < experts) & (low < high), low * experts + high, experts * experts)
                together.scatter_add_(0, both.reshape(-1), self.ones[: both.numel()])

        return capture

    def begin(self, tokens):
        """How many rows of what follows on the stream are tokens; 0: none, as in warm-up and dummy runs."""
        self.valid.fill_(tokens)

    def read_back(self):
        """Starts a copy of the counts to the host, unless one is under way."""
        if self.reading:
            return
        self.staging.copy_(self.counts, non_blocking=True)
        if self.event is not None:
            self.event.record()
        self.reading = True

    def poll(self):
        """Where the copy lies, once it has arrived; else 0."""
        if not self.reading or (self.event is not None and not self.event.query()):
            return 0
        self.reading = False
        return self.staging.data_ptr()


models = {}


def make_device(instance, device, layers, most_rows):
    models[instance] = Device(device, layers, most_rows)
    return models[instance]


def begin(instance, tokens):
    models[instance].begin(tokens)


def end(instance, read_back, last):
    """After a step: nothing counts until the next; the address of counts that have come, or 0.

    last: there may be no other step for long. The device has nothing to do then, so that a few looks see the copy
    arrive; they end after some tens of microseconds, come what may.
    """
    model = models[instance]
    model.begin(0)
    address = model.poll()
    if read_back:
        model.read_back()
        for _ in range(32 if last else 1):
            address = model.poll() or address
            if not model.reading:
                break
    return address
