"""One architecture of every module of timm, the smallest that its names tell."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from .entry import Entry, images, missing

# module: architecture, size of its images
MODELS = {
    "beit": ("beit_base_patch16_224", 224),
    "byoanet": ("halonet26t", 256),
    "byobnet": ("test_byobnet", 32),
    "cait": ("cait_xxs24_224", 224),
    "coat": ("coat_tiny", 224),
    "convit": ("convit_tiny", 224),
    "convmixer": ("convmixer_768_32", 32),
    "convnext": ("test_convnext", 32),
    "cpubone": ("cpubone_nano", 32),
    "crossvit": ("crossvit_tiny_240", 32),
    "csatv2": ("csatv2", 64),
    "cspnet": ("cs3darknet_s", 32),
    "cspnext": ("cspnext_tiny", 32),
    "davit": ("davit_tiny", 32),
    "deepseek_vit": ("deepseek_vit_412m", 224),
    "deit": ("deit_tiny_patch16_224", 224),
    "densenet": ("densenet264d", 32),
    "dla": ("dla34", 32),
    "dpn": ("dpn68", 32),
    "edgenext": ("edgenext_xx_small", 32),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 224),
    "efficientnet": ("test_efficientnet", 32),
    "efficientvim": ("efficientvim_m1", 32),
    "efficientvit_mit": ("efficientvit_b0", 32),
    "efficientvit_msra": ("efficientvit_m0", 32),
    "eva": ("eva02_tiny_patch14_224", 224),
    "fasternet": ("fasternet_t0", 32),
    "fastvit": ("fastvit_t8", 32),
    "focalnet": ("focalnet_tiny_lrf", 32),
    "gcvit": ("gcvit_xxtiny", 224),
    "gemma4_vit": ("gemma4_vit_167m", 32),
    "ghostnet": ("ghostnet_050", 32),
    "hardcorenas": ("hardcorenas_a", 32),
    "hgnet": ("hgnet_tiny", 32),
    "hiera": ("hiera_tiny_224", 224),
    "hieradet_sam2": ("sam2_hiera_tiny", 32),
    "hrnet": ("hrnet_w18_ssld", 32),
    "iformer": ("iformer_t", 32),
    "inception_next": ("inception_next_atto", 32),
    "inception_resnet_v2": ("inception_resnet_v2", 96),
    "inception_v3": ("inception_v3", 96),
    "inception_v4": ("inception_v4", 96),
    "lcnetv2": ("lcnetv2_small", 32),
    "levit": ("levit_384_s8", 224),
    "lowformer": ("lowformer_b0", 32),
    "mambaout": ("test_mambaout", 32),
    "maxxvit": ("maxvit_pico_rw_256", 256),
    "metaformer": ("caformer_s18", 32),
    "mlp_mixer": ("gmlp_ti16_224", 224),
    "mobilenetv3": ("mobilenetv3_small_050", 32),
    "mobilenetv5": ("mobilenetv5_300m", 32),
    "mobilevit": ("mobilevit_xxs", 32),
    "mvitv2": ("mvitv2_tiny", 32),
    "naflexvit": ("naflexvit_base_patch16_siglip", 32),
    "nasnet": ("nasnetalarge", 32),
    "nest": ("nest_tiny", 224),
    "nextvit": ("nextvit_small", 32),
    "nfnet": ("test_nfnet", 32),
    "pit": ("pit_xs_224", 224),
    "pnasnet": ("pnasnet5large", 32),
    "pvt_v2": ("pvt_v2_b0", 32),
    "qwen3_vit": ("qwen3_vit_88m", 32),
    "rdnet": ("rdnet_tiny", 32),
    "regnet": ("regnetx_004_tv", 32),
    "repghost": ("repghostnet_050", 32),
    "repvit": ("repvit_m0_9", 32),
    "res2net": ("res2net50_26w_4s", 32),
    "resnest": ("resnest26d", 32),
    "resnet": ("test_resnet", 32),
    "resnetv2": ("resnetv2_18", 32),
    "rexnet": ("rexnet_150", 32),
    "selecsls": ("selecsls42", 32),
    "senet": ("legacy_senet154", 32),
    "sequencer": ("sequencer2d_s", 32),
    "shvit": ("shvit_s1", 32),
    "sknet": ("skresnet18", 32),
    "starnet": ("starnet_s1", 32),
    "swiftformer": ("swiftformer_xs", 32),
    "swin_transformer": ("swin_s3_tiny_224", 224),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 256),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 224),
    "tiny_vit": ("tiny_vit_5m_224", 32),
    "tnt": ("tnt_s_patch16_224", 224),
    "tresnet": ("tresnet_l", 32),
    "twins": ("twins_svt_base", 32),
    "vgg": ("vgg11", 32),
    "visformer": ("visformer_tiny", 224),
    "vision_transformer": ("test_vit", 32),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 224),
    "vision_transformer_relpos": ("vit_relpos_small_patch16_224", 224),
    "vision_transformer_sam": ("samvit_base_patch16", 32),
    "vitamin": ("vitamin_small_224", 224),
    "volo": ("volo_d1_224", 224),
    "vovnet": ("ese_vovnet19b_slim", 32),
    "xception": ("legacy_xception", 32),
    "xception_aligned": ("xception41", 32),
    "xcit": ("xcit_nano_12_p8_224", 32),
}
DIFFERS = {
    "csatv2": "the weights of a cosine transform are buffers, which the dispatcher's count takes for no weights",
    "naflexvit_base_patch16_siglip": "a layer's input is a parameter, which the dispatcher's count takes for weights",
    "gemma4_vit_167m": "clamps before and behind layers, which the dispatcher's count does not take for activations",
}


def entries() -> Iterator[Entry]:
    import timm

    for name, size in sorted(MODELS.values(), key=lambda model: model[1]):
        make = functools.partial(timm.create_model, name, pretrained=False, num_classes=5)
        yield Entry(name, "timm", make, images(size), differs=DIFFERS.get(name, ""))


ENTRIES = [] if missing("timm") else list(entries())
