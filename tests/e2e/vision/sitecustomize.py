"""Lets torchvision's general build be imported beside torch's CPU build, for models whose processors need it.

Used with this folder on PYTHONPATH, behind the profiler's (a sitecustomize that ours shadows still runs), and with the
folder into which scripts/setup-vllm put torchvision. That build's compiled operations need CUDA's libraries; without
them torchvision does without, but for two names that it takes for granted: torchvision::nms and qnms. They are declared
here, when torchvision is first looked for; nothing in these tests calls them.
"""

import importlib.metadata
import sys


class Declare:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None and "+cpu" not in importlib.metadata.version("torchvision"):
                self.library = torch.library.Library("torchvision", "DEF")
                for name in ("nms", "qnms"):
                    self.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys.modules[__name__].declared = self  # lives as long as the process
        return None


sys.meta_path.insert(0, Declare())
