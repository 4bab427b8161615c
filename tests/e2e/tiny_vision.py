"""Tiny vision-language models whose processors need torchvision, made on the spot as tiny_media.py makes its own:
Qwen3-VL, its form with experts, and InternVL. vLLM gives them dummy weights (--load-format dummy).
"""

from __future__ import annotations

from pathlib import Path

import tiny
import tiny_media

EXPERTS, TOP_K = 8, 2
PATCH, MERGE = 16, 2  # Qwen3-VL: pixels of a patch, patches that become one token, along each side
SIDE = 4 * PATCH * MERGE  # pixels of an image after its processor: 16 tokens

QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_PROMPT = "<|vision_start|><|image_pad|><|vision_end|>"
INTERN_TOKENS = {
    "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}  # fmt: skip
INTERN_PROMPT = "<IMG_CONTEXT>"


def write_tokenizer(folder: Path, more: list[str], **config: object) -> dict[str, int]:
    return tiny_media.write_special_tokenizer(
        folder, [tiny.BOS, tiny.EOS, tiny.PAD, *more], tokenizer_class="PreTrainedTokenizerFast",
        bos_token=tiny.BOS, eos_token=tiny.EOS, pad_token=tiny.PAD, model_max_length=1024, **config,
    )  # fmt: skip


def text_config(ids: dict[str, int], model_type: str, **more: object) -> dict:
    return {
        "model_type": model_type,
        "vocab_size": tiny.VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": ids[tiny.BOS],
        "eos_token_id": ids[tiny.EOS],
        "pad_token_id": ids[tiny.PAD],
        **more,
    }


def make_qwen3_vl(folder: Path, experts: bool = False) -> None:
    """A Qwen3-VL of two layers of text and two of vision, the first of which also goes into the text (deepstack)."""
    ids = write_tokenizer(folder, QWEN_TOKENS)
    kind = "qwen3_vl_moe" if experts else "qwen3_vl"
    more = (
        {
            "num_experts": EXPERTS,
            "num_local_experts": EXPERTS,
            "num_experts_per_tok": TOP_K,
            "moe_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "mlp_only_layers": [],
        }
        if experts
        else {}
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4], "mrope_interleaved": True}
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3VLMoeForConditionalGeneration" if experts else "Qwen3VLForConditionalGeneration"],
            "model_type": kind,
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "text_config": text_config(ids, f"{kind}_text", rope_parameters=rope, rope_scaling=rope, **more),
            "vision_config": {
                "model_type": kind,
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "in_channels": 3,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
                "hidden_act": "gelu_pytorch_tanh",
            },
        },
    )
    images = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
    }
    tiny.write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen3VLProcessor", **images},
    )
    tiny.write_json(
        folder / "video_preprocessor_config.json",
        {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor", **images},
    )


def make_qwen3_vl_moe(folder: Path) -> None:
    make_qwen3_vl(folder, experts=True)


def make_internvl(folder: Path) -> None:
    """An InternVL of two layers of vision, 16 patches that become 4 tokens, and a Qwen2 of two."""
    side = tiny_media.IMAGE_SIDE
    ids = write_tokenizer(folder, list(INTERN_TOKENS.values()), extra_special_tokens=INTERN_TOKENS)
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["InternVLForConditionalGeneration"],
            "model_type": "internvl",
            "image_token_id": ids["<IMG_CONTEXT>"],
            "image_seq_length": 4,
            "downsample_ratio": 0.5,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
            "torch_dtype": "float32",
            "text_config": text_config(ids, "qwen2", architectures=["Qwen2ForCausalLM"]),
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [side, side],
                "patch_size": [side // 4, side // 4],
                "num_channels": 3,
                "hidden_act": "gelu",
                "norm_type": "layer_norm",
                "use_absolute_position_embeddings": True,
            },
        },
    )
    images = {
        "size": {"height": side, "width": side},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
    }
    tiny.write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "GotOcr2ImageProcessor",
            "processor_class": "InternVLProcessor",
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 1,
            **images,
        },
    )
    tiny.write_json(
        folder / "video_preprocessor_config.json",
        {"video_processor_type": "InternVLVideoProcessor", "processor_class": "InternVLProcessor", **images},
    )
    tiny.write_json(folder / "processor_config.json", {"processor_class": "InternVLProcessor", "image_seq_length": 4})


tiny.MAKERS.update({"qwen3-vl": make_qwen3_vl, "qwen3-vl-moe": make_qwen3_vl_moe, "internvl": make_internvl})
