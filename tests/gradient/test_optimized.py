"""What ONNX Runtime's optimizer and quantizer make of a model has the gradient of the original.

ONNX Runtime writes the optimized or quantized file, both are differentiated, and both run with
its optimizer off, so that the file itself is what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from onnxcam.gradient.differentiate import CHANGED, add_gradients

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
CLASSES = 5


def _network(text: str, opset: int, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net (float[N,3,8,8] x) => '
        f"(float[N,{CLASSES}] y) {{ {text} }}"
    )
    arrays = {
        k: np.asarray(v, np.float32 if v.dtype.kind == "f" else None) for k, v in weights.items()
    }
    model.graph.initializer.extend(numpy_helper.from_array(a, k) for k, a in arrays.items())
    onnx.checker.check_model(model)
    return model


def convolutions(opset: int = 13) -> onnx.ModelProto:
    """Activations after convolutions and dense layers, and a residual addition."""
    rng = np.random.default_rng(2)

    def w(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))

    return _network(
        """
        a0 = Conv <pads=[1,1,1,1]> (x, w0, b0)  a = Relu (a0)
        c0 = Conv <pads=[1,1,1,1]> (a, w1)  c = LeakyRelu <alpha=0.2> (c0)
        d0 = Conv <pads=[1,1,1,1]> (c, w2, b0)  d1 = Add (d0, a)  d = Relu (d1)
        e0 = Conv <group=8, pads=[1,1,1,1]> (d, w3)  e = Clip (e0, low, high)
        f0 = Conv (e, w4)  f = HardSigmoid <alpha=0.3, beta=0.4> (f0)
        g0 = Conv (f, w4)  g = Tanh (g0)
        h0 = Conv (g, w4)  h = Sigmoid (h0)
        s = Mul (e, h)
        p = GlobalAveragePool (s)  q = Flatten (p)
        r0 = Gemm (q, v0, u0)  r = Relu (r0)
        y = Gemm <transB=1> (r, v1)
        """,
        opset,
        w0=w(8, 3, 3, 3), b0=w(8) * 0.1, w1=w(8, 8, 3, 3), w2=w(8, 8, 3, 3), w3=w(8, 1, 3, 3),
        w4=w(8, 8, 1, 1), low=np.float32(0), high=np.float32(1.5), v0=w(8, 6) * 3, u0=w(6) * 0.3 + 0.2,
        v1=w(CLASSES, 6),
    )  # fmt: skip


def transformer(opset: int = 17) -> onnx.ModelProto:
    """Patches, then a block of attention and dense layers as exported from PyTorch."""
    rng = np.random.default_rng(4)
    width, heads, size = 8, 2, 4

    def w(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(shape[0])

    norm = """
        {y}_m = ReduceMean <axes=[-1]> ({x})  {y}_d = Sub ({x}, {y}_m)
        {y}_s = Pow ({y}_d, two)  {y}_v = ReduceMean <axes=[-1]> ({y}_s)
        {y}_e = Add ({y}_v, epsilon)  {y}_r = Sqrt ({y}_e)  {y}_h = Div ({y}_d, {y}_r)
        {y}_g = Mul ({y}_h, {y}_w)  {y} = Add ({y}_g, {y}_b)
    """
    heads_of = """
        {y}_p = MatMul (n1, {y}_w)  {y}_a = Add ({y}_p, {y}_b)  {y}_s = Reshape ({y}_a, split)
        {y} = Transpose <perm={perm}> ({y}_s)
    """
    text = (
        "c = Conv <strides=[2,2]> (x, w0)  f = Reshape (c, rows)  t0 = Transpose <perm=[0,2,1]> (f)"
        "  t = Add (t0, place)"
        + norm.format(x="t", y="n1")
        + heads_of.format(y="q", perm="[0,2,1,3]")
        + heads_of.format(y="k", perm="[0,2,3,1]")
        + heads_of.format(y="v", perm="[0,2,1,3]")
        + """
        s0 = MatMul (q, k)  s = Div (s0, root)  a = Softmax <axis=-1> (s)  o0 = MatMul (a, v)
        o1 = Transpose <perm=[0,2,1,3]> (o0)  o2 = Reshape (o1, join)
        o3 = MatMul (o2, o_w)  o = Add (o3, o_b)  u = Add (o, n1)
        """
        + norm.format(x="u", y="n2")
        + """
        g0 = MatMul (n2, m_w)  g1 = Add (g0, m_b)  g2 = Div (g1, root2)  g3 = Erf (g2)
        g4 = Add (g3, one)  g5 = Mul (g1, g4)  g6 = Mul (g5, half)
        z0 = MatMul (g6, z_w)  z1 = Add (z0, o_b)  z = Add (z1, n2)
        """
        + norm.format(x="z", y="n3")
        + "p = ReduceMean <axes=[1], keepdims=0> (n3)  y = Gemm (p, y_w, y_b)"
    )
    scales = {f"n{i}_{k}": rng.uniform(0.5, 1.5, width) for i in (1, 2, 3) for k in "wb"}
    dense = {f"{k}_w": w(width, width) for k in "qkvo"} | {f"{k}_b": w(width) for k in "qkvo"}
    return _network(
        text, opset, w0=rng.normal(size=(width, 3, 2, 2)) * 0.5,
        rows=np.array([0, width, -1]), split=np.array([0, 0, heads, size]),
        join=np.array([0, 0, width]), place=rng.normal(size=(1, 16, width)), two=np.float32(2),
        epsilon=np.float32(1e-5), root=np.float32(size**0.5), root2=np.float32(2**0.5),
        one=np.float32(1), half=np.float32(0.5), m_w=w(width, 16), m_b=w(16), z_w=w(16, width),
        y_w=w(width, CLASSES), y_b=w(CLASSES), **scales, **dense,
    )  # fmt: skip


NETWORKS = {"convolutions": convolutions, "transformer": transformer}
IMAGES = np.random.default_rng(7).normal(size=(2, 3, 8, 8)).astype("f")
SEED = np.random.default_rng(8).normal(size=(3, 2, CLASSES)).astype("f")


def operators(path: Path) -> set[str]:
    return {f"{n.domain}.{n.op_type}".removeprefix(".") for n in onnx.load(path).graph.node}


def gradient(path: Path, policy: str = "standard") -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and their gradient with respect to the images."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = add_gradients(path, "y", "x", policy=policy).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return tuple(session.run(["y", "gradient:x"], {"x": IMAGES, "seed:y": SEED}))


def optimized(path: Path, level: str) -> Path:
    """Have ONNX Runtime optimize a file."""
    out = path.with_suffix(f".{level}.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return out


def agree(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], by: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, atol=by * np.abs(b).max(), rtol=0)


WRITTEN = {
    ("convolutions", "extended"): {"com.microsoft.FusedConv", "com.microsoft.FusedGemm"},
    ("transformer", "extended"): {
        "LayerNormalization",
        "com.microsoft.SkipLayerNormalization",
        "com.microsoft.FusedMatMul",
        "com.microsoft.BiasGelu",
    },
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_optimized_files(name: str, opset: int, level: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(NETWORKS[name](opset), path)
    other = optimized(path, level)
    assert WRITTEN.get((name, level), set()) <= operators(other)
    agree(gradient(other), gradient(path), 1e-4)


def test_files_of_the_optimizer_for_transformers(tmp_path: Path) -> None:
    module = pytest.importorskip("onnxruntime.transformers.optimizer")
    options = pytest.importorskip("onnxruntime.transformers.fusion_options").FusionOptions("bert")
    path = tmp_path / "net.onnx"
    onnx.save(transformer(), path)
    for several in (False, True):
        options.use_multi_head_attention = several
        model = module.optimize_model(
            str(path), "bert", num_heads=2, hidden_size=8, opt_level=0, optimization_options=options
        )
        other = tmp_path / f"fused{several}.onnx"
        model.save_model_to_file(str(other))
        fused = "MultiHeadAttention" if several else "Attention"
        assert {f"com.microsoft.{fused}", "com.microsoft.BiasGelu"} <= operators(other)
        agree(gradient(other), gradient(path), 1e-4)


def _calibration() -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(9)
            self.items: Iterator[dict[str, np.ndarray]] = iter(
                [{"x": IMAGES}] + [{"x": rng.normal(size=IMAGES.shape).astype("f")} for _ in "abc"]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.items, None)

    return Reader()


def quantized(path: Path, form: str) -> Path:
    """Have ONNX Runtime quantize a file statically."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    out = path.with_name(f"{form}.onnx")
    quantization.quantize_static(
        str(path), str(out), _calibration(), quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("name", NETWORKS)
def test_statically_quantized_files(name: str, tmp_path: Path) -> None:
    """Both forms say the same; the runtime's fusion of the one gives operators of the other."""
    path = tmp_path / "net.onnx"
    onnx.save(NETWORKS[name](), path)
    exact = gradient(path)
    found = {}
    for form in ("QDQ", "QOperator"):
        out = quantized(path, form)
        found[form] = gradient(out)
        agree(gradient(optimized(out, "basic")), found[form], 1e-4)
        found[f"{form} extended"] = gradient(optimized(out, "extended"))
    assert "QLinearConv" in operators(tmp_path / "QDQ.extended.onnx")
    assert "QLinearConv" in operators(tmp_path / "QOperator.onnx")
    for scores, slopes in found.values():
        agree((scores,), exact[:1], 0.1)
        assert np.corrcoef(slopes.ravel(), exact[1].ravel())[0, 1] > 0.9
        assert np.corrcoef(slopes.ravel(), found["QDQ"][1].ravel())[0, 1] > 0.93


@pytest.mark.parametrize("name", NETWORKS)
def test_dynamically_quantized_files(name: str, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, out = tmp_path / "net.onnx", tmp_path / "dynamic.onnx"
    onnx.save(NETWORKS[name](), path)
    quantization.quantize_dynamic(str(path), str(out))
    assert {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} <= operators(out)
    found, exact = gradient(out), gradient(path)
    agree(found[:1], exact[:1], 0.1)
    assert np.corrcoef(found[1].ravel(), exact[1].ravel())[0, 1] > 0.95
    other = optimized(out, "extended")
    assert "com.microsoft.DynamicQuantizeMatMul" in operators(other)
    agree(gradient(other), found, 1e-4)


@pytest.mark.parametrize("policy", ["guided", "deconvnet"])
def test_rectifiers_inside_others(policy: str, tmp_path: Path) -> None:
    """A rectifier is found inside a fused operator, and where the codes begin at 0."""
    path = tmp_path / "net.onnx"
    onnx.save(convolutions(), path)
    exact = gradient(path, policy)
    fused = optimized(path, "extended")
    agree(gradient(fused, policy), exact, 1e-4)
    named = add_gradients(fused, "y", "x", policy=policy).metadata_props
    listed = next(p.value for p in named if p.key == CHANGED).split("\n")
    nodes = onnx.load(fused).graph.node
    assert set(listed) <= {n.name or n.output[0] for n in nodes} and len(listed) == 4
    plain = gradient(path)[1].ravel()
    for form in ("QDQ", "QOperator"):
        found = gradient(quantized(path, form), policy)[1].ravel()
        assert np.corrcoef(found, exact[1].ravel())[0, 1] > 0.95
        assert np.corrcoef(plain, exact[1].ravel())[0, 1] < 0.9
