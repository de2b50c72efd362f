"""Architectures of torchvision and timm, with weights that can fail a test."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .networks import torchvision_models

TORCHVISION = [
    *("alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121"),
    *("squeezenet1_1", "inception_v3", "googlenet", "mobilenet_v2", "mobilenet_v3_small"),
    *("mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny"),
    *("vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"),
]
TIMM = [
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
    *(
        "pvt_v2_b0",
        "xcit_nano_12_p16_224",
        "levit_128s",
        "maxvit_nano_rw_256",
        "coatnet_nano_rw_224",
    ),
    *("efficientformer_l1", "efficientformerv2_s0", "davit_tiny", "sequencer2d_s"),
    *("mobilevit_xxs", "mobilevitv2_050", "mobileone_s0", "convnextv2_atto", "cait_xxs24_224"),
    *("poolformer_s12", "mixer_s32_224", "gmlp_ti16_224", "resmlp_12_224", "edgenext_xx_small"),
    *("fastvit_t8", "ghostnet_100", "hrnet_w18_small", "res2net50_14w_8s", "dla34"),
    *("cspresnet50", "eca_nfnet_l0", "botnet26t_256", "halonet26t", "lambda_resnet26t"),
    *("crossvit_tiny_240", "twins_svt_small", "focalnet_tiny_srf", "visformer_tiny", "convit_tiny"),
    *("volo_d1_224", "eva02_tiny_patch14_224", "mobilenetv4_conv_small", "repvit_m0_9"),
    *("tiny_vit_5m_224", "nest_tiny", "pit_ti_224", "tnt_s_patch16_224", "efficientvit_b0"),
    *("inception_next_atto", "hgnetv2_b0", "starnet_s1", "selecsls42", "tf_efficientnet_lite0"),
    *("skresnet18", "resnest14d", "gcresnet33ts", "rexnet_100", "vovnet39a", "hardcorenas_a"),
]
NAMES = [f"torchvision/{name}" for name in TORCHVISION] + [f"timm/{name}" for name in TIMM]
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False, "transform_input": False},
    "inception_v3": {"aux_logits": False, "init_weights": False, "transform_input": False},
}
_SIZES = {"inception_v3": 139, "swin_v2_t": 256}
_CHAOTIC = {"levit_128s"}  # with statistics from data, rounding grows to percents of the scores
_SCALES = ("gamma", "layer_scale", "ls1", "ls2", "scale", "alpha", "beta")


def network(name: str) -> tuple[nn.Module, int]:
    """Return a seeded network in inference mode, and the size of its images."""
    torch.manual_seed(3)
    library, _, model_name = name.partition("/")
    if library == "torchvision":
        options = _OPTIONS.get(model_name, {})
        model = getattr(torchvision_models(), model_name)(weights=None, **options)
        size = _SIZES.get(model_name, 224)
    else:
        torchvision_models()  # timm imports torchvision
        import timm

        model = timm.create_model(model_name, pretrained=False, num_classes=100)
        size = model.default_cfg["input_size"][-1]
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    _enliven(model)
    if model_name not in _CHAOTIC:
        _take_statistics(model, size)
    return model.eval(), size


def _enliven(model: nn.Module) -> None:
    """Keep signals alive in depth, and few of them near a rectifier's kink.

    With biases around 0, PyTorch's own gradient in float32 is 2e-2 away from that in float64 on
    ResNeXt-50 (measured); with these 3e-4 to 1e-3.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "pos" not in name and "token" not in name:
            fan = parameter[0].numel()
            nn.init.normal_(parameter, std=(1.5 / max(fan, 1)) ** 0.5)
        elif any(word in name for word in _SCALES):
            nn.init.uniform_(parameter, 0.2, 0.6)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.2, 0.5)
            nn.init.normal_(module.bias, mean=1.0, std=0.5)


def _take_statistics(model: nn.Module, size: int) -> None:
    """Take the statistics of batch normalization from data."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a cumulative average
            module.train()
    with torch.no_grad():
        model(torch.randn(4, 3, size, size))
