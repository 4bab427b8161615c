"""Tiny models with an encoder of audio or images, made on the spot as tiny.py makes those of text: a configuration, a
tokenizer trained here, a preprocessor. vLLM gives them dummy weights (--load-format dummy): what matters is which parts
of them run, not what they say.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import tiny

AUDIO_SECONDS, SAMPLING_RATE = 2, 16000
IMAGE_SIDE, QUERY_TOKENS = 56, 8  # pixels; tokens that an image becomes


def audio(seed: int) -> tuple[numpy.ndarray, int]:
    """A second and a half of noise, at its rate."""
    rng = numpy.random.default_rng(seed)
    return (0.1 * rng.standard_normal(SAMPLING_RATE * 3 // 2)).astype(numpy.float32), SAMPLING_RATE


def image(seed: int):
    """An image of noise."""
    from PIL import Image

    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=numpy.uint8))


def write_special_tokenizer(folder: Path, specials: list[str], **config: object) -> dict[str, int]:
    """tiny.py's tokenizer with further special tokens; returns their ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny.CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tiny.write_json(
        folder / "tokenizer_config.json",
        {"clean_up_tokenization_spaces": False, "extra_special_tokens": {}, **config},
    )
    return {token: tokenizer.token_to_id(token) for token in specials}


def make_whisper(folder: Path) -> None:
    """A Whisper of two encoder and two decoder layers, which hears two seconds."""
    specials = [
        "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
        "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
    ]  # fmt: skip
    end = "<|endoftext|>"
    ids = write_special_tokenizer(
        folder, specials, tokenizer_class="PreTrainedTokenizerFast", bos_token=end, eos_token=end, pad_token=end,
        unk_token=end, model_max_length=64,
    )  # fmt: skip
    frames = AUDIO_SECONDS * 100
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["WhisperForConditionalGeneration"],
            "model_type": "whisper",
            "is_encoder_decoder": True,
            "vocab_size": tiny.VOCABULARY,
            "d_model": 64,
            "num_mel_bins": 80,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "num_hidden_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_source_positions": frames // 2,
            "max_target_positions": 64,
            "activation_function": "gelu",
            "scale_embedding": False,
            "torch_dtype": "float32",
            "bos_token_id": ids[end],
            "eos_token_id": ids[end],
            "pad_token_id": ids[end],
            "decoder_start_token_id": ids["<|startoftranscript|>"],
        },
    )
    tiny.write_json(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": 80,
            "sampling_rate": SAMPLING_RATE,
            "hop_length": 160,
            "chunk_length": AUDIO_SECONDS,
            "n_fft": 400,
            "n_samples": AUDIO_SECONDS * SAMPLING_RATE,
            "nb_max_frames": frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        },
    )


def make_blip2(folder: Path) -> None:
    """A BLIP-2: a vision model of two layers that sees 16 patches, a Q-Former of two, and an OPT of two. (Those
    whose processors need torchvision, as most do, are in tiny_vision.py.)"""
    ids = write_special_tokenizer(
        folder, [tiny.BOS, tiny.EOS, tiny.PAD, "<image>"], tokenizer_class="PreTrainedTokenizerFast",
        bos_token=tiny.BOS, eos_token=tiny.EOS, pad_token=tiny.PAD, model_max_length=1024,
    )  # fmt: skip
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["Blip2ForConditionalGeneration"],
            "model_type": "blip-2",
            "num_query_tokens": QUERY_TOKENS,
            "image_token_index": ids["<image>"],
            "image_text_hidden_size": 64,
            "torch_dtype": "float32",
            "use_decoder_only_language_model": True,
            "vision_config": {
                "model_type": "blip_2_vision_model",
                "image_size": IMAGE_SIDE,
                "patch_size": IMAGE_SIDE // 4,
                "qkv_bias": True,
                "hidden_act": "gelu",
                **small,
            },
            "qformer_config": {
                "model_type": "blip_2_qformer",
                "vocab_size": tiny.VOCABULARY,
                "encoder_hidden_size": 64,
                "cross_attention_frequency": 2,
                "max_position_embeddings": 64,
                **small,
            },
            "text_config": {
                "model_type": "opt",
                "architectures": ["OPTForCausalLM"],
                "vocab_size": tiny.VOCABULARY,
                "hidden_size": 64,
                "word_embed_proj_dim": 64,
                "ffn_dim": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 1024,
                "bos_token_id": ids[tiny.BOS],
                "eos_token_id": ids[tiny.EOS],
                "pad_token_id": ids[tiny.PAD],
            },
        },
    )
    tiny.write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "Blip2Processor",
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 3,
        },
    )
    tiny.write_json(
        folder / "processor_config.json", {"processor_class": "Blip2Processor", "num_query_tokens": QUERY_TOKENS}
    )


tiny.MAKERS.update({"whisper": make_whisper, "blip2": make_blip2})
