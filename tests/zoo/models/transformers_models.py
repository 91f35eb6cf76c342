"""Models of Hugging Face's transformers from tiny configurations, trained by the loss that they bring."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .entry import Entry, missing

WORDS, WIDTH, LENGTH = 64, 32, 12
USUAL = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": WORDS, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
}
PICTURE = {"image_size": 32, "patch_size": 8, "num_labels": 3}
SPEECH = {
    **USUAL, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "mask_time_length": 2, "mask_time_prob": 0.2,
}  # fmt: skip


def tokens() -> dict[str, Any]:
    ids = torch.randint(3, WORDS, (2, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def language() -> dict[str, Any]:
    given = tokens()
    return {**given, "labels": given["input_ids"].clone()}


def causal() -> dict[str, Any]:
    return {**language(), "use_cache": False}


def classes() -> dict[str, Any]:
    return {**tokens(), "labels": torch.tensor([0, 1])}


def spans() -> dict[str, Any]:
    return {**tokens(), "start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])}


def picture(size: int = 32) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, size, size), "labels": torch.tensor([0, 1])}


def segments() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 64, 64), "labels": torch.randint(3, (2, 64, 64))}


def masked_picture() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def speech() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 800), "labels": torch.tensor([0, 1])}


def spelled() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1600), "labels": torch.randint(3, WORDS, (2, 4))}


def spectrum() -> dict[str, Any]:
    return {"input_features": torch.randn(2, 16, 32), "labels": torch.randint(3, WORDS, (2, 6))}


def pairs() -> dict[str, Any]:
    return {**tokens(), "pixel_values": torch.randn(2, 3, 32, 32), "return_loss": True}


def boxes() -> dict[str, Any]:
    labels = [{"class_labels": torch.tensor([0, 1]), "boxes": torch.rand(2, 4) * 0.4 + 0.2} for _ in range(2)]
    return {"pixel_values": torch.randn(2, 3, 64, 64), "pixel_mask": torch.ones(2, 64, 64).long(), "labels": labels}


def boxes_only() -> dict[str, Any]:
    return {name: value for name, value in boxes().items() if name != "pixel_mask"}


def series() -> dict[str, Any]:
    return {"past_values": torch.randn(2, 32, 2), "future_values": torch.randn(2, 8, 2)}


def _made(kind: str, options: dict[str, Any]) -> nn.Module:
    import transformers

    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    return cls(cls.config_class(**options))


MIXED = {**USUAL, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
MODERN = {**USUAL, "num_key_value_heads": 1, "head_dim": 16}
SWIN = {**PICTURE, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [16, 24], "depths": [1, 1], "num_labels": 3}
CLIP = {
    "text_config": {**USUAL}, "vision_config": {**USUAL, **PICTURE}, "projection_dim": 16,
}  # fmt: skip
DETR = {
    "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_queries": 5, "num_labels": 3,
    **{k: v for k, v in SEQ2SEQ.items() if "token" not in k and k != "vocab_size"},
}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "layer_type": "basic"}

# architecture: settings, batch; and, behind them, why not all calls are seen
MODELS: dict[str, tuple[Any, ...]] = {
    "BertForSequenceClassification": (USUAL, classes),
    "BertForMaskedLM": (USUAL, language),
    "RobertaForTokenClassification": ({**USUAL, "num_labels": WORDS}, language),
    "DistilBertForQuestionAnswering": ({"vocab_size": WORDS, "dim": WIDTH, "n_layers": 2, "n_heads": 2,
                                        "hidden_dim": 48}, spans),
    "AlbertForMaskedLM": ({**USUAL, "embedding_size": 16}, language),
    "ElectraForMaskedLM": ({**USUAL, "embedding_size": 16}, language),
    "DebertaForSequenceClassification": ({**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, classes
    ),
    "DebertaV2ForSequenceClassification": (
        {**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, classes),
    "MPNetForMaskedLM": (USUAL, language),
    "XLMRobertaForMaskedLM": (USUAL, language),
    "ModernBertForMaskedLM": ({**USUAL, "cls_token_id": 1, "sep_token_id": 2}, language),
    "FNetForMaskedLM": (USUAL, lambda: {k: v for k, v in language().items() if k != "attention_mask"}),
    "ConvBertForMaskedLM": ({**USUAL, "embedding_size": 16}, language),
    "LongformerForMaskedLM": ({**USUAL, "attention_window": 4}, language),
    "BigBirdForMaskedLM": ({**USUAL, "attention_type": "original_full"}, language),
    "FunnelForMaskedLM": ({"vocab_size": WORDS, "block_sizes": [1, 1], "d_model": WIDTH, "n_head": 2, "d_head": 16,
                           "d_inner": 48, "num_decoder_layers": 1}, language),
    "GPT2LMHeadModel": ({"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 64},
                        causal),
    "GPTNeoForCausalLM": ({**USUAL, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
                          causal),
    "GPTNeoXForCausalLM": (USUAL, causal),
    "GPTJForCausalLM": ({"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "rotary_dim": 4}, causal),
    "OPTForCausalLM": ({**USUAL, "ffn_dim": 48, "word_embed_proj_dim": WIDTH}, causal),
    "BloomForCausalLM": ({"vocab_size": WORDS, "hidden_size": WIDTH, "n_layer": 2, "n_head": 2}, causal),
    "LlamaForCausalLM": (MODERN, causal),
    "MistralForCausalLM": (MODERN, causal),
    "MixtralForCausalLM": ({**MIXED, "head_dim": 16}, causal),
    "Qwen2ForCausalLM": (MODERN, causal),
    "Qwen3ForCausalLM": (MODERN, causal),
    "Qwen2MoeForCausalLM": ({**MIXED, "num_experts": 4, "moe_intermediate_size": 16,
                             "shared_expert_intermediate_size": 16}, causal),
    "GemmaForCausalLM": (MODERN, causal),
    "Gemma2ForCausalLM": (MODERN, causal),
    "PhiForCausalLM": (USUAL, causal),
    "Phi3ForCausalLM": (USUAL, causal),
    "FalconForCausalLM": (USUAL, causal),
    "StableLmForCausalLM": ({**USUAL, "num_key_value_heads": 2}, causal),
    "OlmoForCausalLM": (USUAL, causal),
    "MambaForCausalLM": ({"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 4},
                         causal),
    "Mamba2ForCausalLM": ({"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 4,
                           "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}, causal),
    "RwkvForCausalLM": ({**USUAL, "attention_hidden_size": WIDTH, "context_length": 64}, causal),
    "XLNetLMHeadModel": ({"vocab_size": WORDS, "d_model": WIDTH, "n_layer": 2, "n_head": 2, "d_inner": 48}, language),
    "T5ForConditionalGeneration": (T5, language),
    "MT5ForConditionalGeneration": (T5, language),
    "SwitchTransformersForConditionalGeneration": ({**T5, "num_experts": 4}, language),
    "BartForConditionalGeneration": (SEQ2SEQ, language),
    "PegasusForConditionalGeneration": (SEQ2SEQ, language),
    "MarianMTModel": (SEQ2SEQ, language),
    "ViTForImageClassification": ({**USUAL, **PICTURE}, picture),
    "DeiTForImageClassification": ({**USUAL, **PICTURE}, picture),
    "BeitForImageClassification": ({**USUAL, **PICTURE}, picture),
    "Dinov2ForImageClassification": ({**USUAL, **PICTURE}, picture),
    "ViTMAEForPreTraining": ({**USUAL, **PICTURE, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
                              "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}, masked_picture),
    "SwinForImageClassification": (SWIN, picture),
    "Swinv2ForImageClassification": (SWIN, picture),
    "ConvNextForImageClassification": ({**STAGES, "num_stages": 2}, picture),
    "ResNetForImageClassification": ({**STAGES, "embedding_size": 8}, picture),
    "SegformerForSemanticSegmentation": ({"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1],
                                          "hidden_sizes": [16, 24], "patch_sizes": [7, 3], "strides": [4, 2],
                                          "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "num_labels": 3,
                                          "decoder_hidden_size": 16}, segments),
    "CLIPModel": (CLIP, pairs),
    "SiglipModel": (CLIP, pairs),
    "Wav2Vec2ForCTC": (SPEECH, spelled),
    "HubertForSequenceClassification": ({**SPEECH, "num_labels": 3, "classifier_proj_size": 16}, speech),
    "WhisperForConditionalGeneration": ({**SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 16,
                                         "max_target_positions": 32}, spectrum),
    "DetrForObjectDetection": ("detr", boxes),
    "YolosForObjectDetection": ({**USUAL, "image_size": [64, 64], "patch_size": 16, "num_detection_tokens": 5,
                                 "num_labels": 3}, boxes_only),
    "PatchTSTForPrediction": ({"num_input_channels": 2, "context_length": 32, "prediction_length": 8, "patch_length": 8,
                               "d_model": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "ffn_dim": 32}, series),
}  # fmt: skip


def _detr() -> nn.Module:
    import transformers

    config = transformers.DetrConfig(
        **DETR, backbone_config=transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    )
    return transformers.DetrForObjectDetection(config)


def entries() -> Iterator[Entry]:
    for name, (options, batch, *why) in MODELS.items():
        make: Callable[[], nn.Module] = functools.partial(_made, name, options)
        yield Entry(name, "transformers", _detr if options == "detr" else make, batch, differs="".join(why))


ENTRIES = [] if missing("transformers") else list(entries())
