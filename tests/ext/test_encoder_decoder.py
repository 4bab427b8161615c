"""The encoder_decoder probe on classes that look like vLLM's: the kind of a model, and where it keeps its hands off."""

import textwrap

import pytest

import fake

FILES = {
    **fake.FILES,
    "vllm/model_executor/__init__.py": "",
    "vllm/model_executor/layers/__init__.py": "",
    "vllm/model_executor/layers/attention/__init__.py": "",
    "vllm/model_executor/layers/attention/cross_attention.py": """
        def make_impl(name):
            class Impl:
                def forward(self, layer):
                    return layer
            Impl.__name__ = name
            return Impl

        OWN, SHARED = make_impl("CrossAttentionImpl"), make_impl("FlashAttentionImpl")

        class CrossAttention:
            def __init__(self, own=True, direct=False):
                self.use_direct_call = direct
                self.impl = (OWN if own else SHARED)()
        """,
}


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1")
        begin = "from types import SimpleNamespace as N\nfrom vllm.v1.worker.gpu_worker import Worker\n"
        done = fake.run(fake.PYTHON, ["-c", begin + textwrap.dedent(script)], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        (process,) = fake.records(session)
        return process.attributes, done.stdout.split()

    return run


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("is_encoder_decoder=True, is_multimodal_model=True", "encoder_decoder"),
        ("is_encoder_decoder=False, is_multimodal_model=True, hf_config=N(vision_config={})", "vision_language"),
        ("is_encoder_decoder=False, is_multimodal_model=True, hf_config=N(audio_config={})", "audio_language"),
        ("is_encoder_decoder=False, is_multimodal_model=True, hf_config=N(vision_config=1, audio_config=1)", "multimodal"),
        ("is_encoder_decoder=False, is_multimodal_model=True", "multimodal"),
        ("is_encoder_decoder=False, is_multimodal_model=False, attn_type='encoder_only'", "encoder_only"),
        ("is_encoder_decoder=False, is_multimodal_model=False, attn_type='decoder'", "decoder_only"),
        ("is_encoder_decoder=False", "decoder_only"),
        ("is_encoder_decoder='perhaps'", None),
        ("", None),
    ],
)
def test_the_kind_of_a_model(run, model, kind):
    attributes, _ = run(f"Worker(N(model_config=N({model})), 0, 0, 'tcp://')")
    assert attributes.get("model_type") == kind


CROSS = """
from vllm.model_executor.layers.attention import cross_attention as c
Worker(N(), 0, 0, "tcp://")
layer = c.CrossAttention({arguments})
c.CrossAttention({arguments})
assert layer.impl.forward(7) == 7
print(type(vars(c.OWN)["forward"]).__name__, type(vars(c.SHARED)["forward"]).__name__)
"""
NAME = "hook.vllm.model_executor.layers.attention.cross_attention:CrossAttentionImpl.forward"


def test_the_class_of_cross_attention_is_hooked_when_the_first_layer_is_made(run):
    attributes, (own, shared) = run(CROSS.format(arguments=""))
    assert own != "function" == shared
    assert attributes[NAME] == "patched" and NAME.replace("hook.", "fired.", 1) in attributes
    assert "note.cross_attention" not in attributes


@pytest.mark.parametrize(
    ("arguments", "why"), [("own=False", "no implementation of its own"), ("direct=True", "torch.compile traces it")]
)
def test_where_it_cannot_be_told_apart_or_is_traced_it_is_left_alone(run, arguments, why):
    attributes, kinds = run(CROSS.format(arguments=arguments))
    assert kinds == ["function", "function"]
    assert NAME not in attributes and why in attributes["note.cross_attention"]
