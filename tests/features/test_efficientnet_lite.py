"""EfficientNet-Lite written from its table: the features of timm's network, with the same names."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from conftest import textured
from reconpatch.features.backbones import WEIGHT_PACKAGES
from reconpatch.features.efficientnet_lite import (
    MEAN,
    SCALES,
    STD,
    Floats,
    backbone_graph,
    random_state,
    stages,
    tensor_shapes,
)
from reconpatch.features.graph_builder import BACKBONE, BackboneGraph, Level
from reconpatch.features.graph_contents import checked_graph
from reconpatch.features.pth_file import read_pth

NAMES = sorted(SCALES)
SIZES = [(224, 224), (225, 311), (64, 90)]  # not square, not of 32: the zeros of every side count


def run(backbone: BackboneGraph, photos: Floats) -> list[Floats]:
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    maps: list[Floats] = session.run(None, {"photos": photos})
    return maps


def published(name: str) -> dict[str, Any]:
    """The weights of a package, by timm's names."""
    package = WEIGHT_PACKAGES[f"{name}.in1k"]
    module = package.distribution.replace("-", "_")
    pytest.importorskip(module)
    tensors = read_pth(importlib.resources.files(module).joinpath(package.path).read_bytes())
    return dict(zip(tensor_shapes(name), tensors.values(), strict=True))


@pytest.fixture(scope="module", params=["generated", pytest.param("real", marks=pytest.mark.real)])
def pictures(request: pytest.FixtureRequest) -> list[Image.Image]:
    if request.param == "generated":
        return [Image.fromarray(textured(seed, 320, 320)) for seed in range(2)]
    folder: Path = request.getfixturevalue("real_data")
    paths = sorted((folder / "mvtec_ad" / "bottle" / "test").glob("*/*.png"))[::20]
    return [Image.open(path).convert("RGB") for path in paths]


def prepared(pictures: list[Image.Image], size: tuple[int, int]) -> Floats:
    resized = [np.asarray(picture.resize(size[::-1]), np.float32) / 255 for picture in pictures]
    return np.stack([picture.transpose(2, 0, 1) for picture in resized])


def timm_maps(name: str, state: dict[str, Any], photos: Floats) -> list[tuple[Floats, Any]]:
    """Of each level timm's map, and the expanded activations of its last block or None."""
    torch = pytest.importorskip("torch", reason="timm's network runs on torch")
    timm = pytest.importorskip("timm")
    model = timm.create_model(f"{name}.in1k").eval()
    model.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in state.items()})
    projected: dict[int, Any] = {}
    for number, stage in enumerate((0, 1, 2, 4, 6)):
        projection = getattr(model.blocks[stage][-1], "conv_pwl", None)
        if projection is not None:
            projection.register_forward_pre_hook(
                lambda _, given, number=number: projected.update({number: given[0].numpy()})
            )
    with torch.inference_mode():
        normalised = (torch.from_numpy(photos) - MEAN) / STD
        maps = model.forward_intermediates(normalised, intermediates_only=True)
    return [(found.numpy(), projected.get(i)) for i, found in enumerate(maps)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_timm(
    name: str, size: tuple[int, int], pictures: list[Image.Image]
) -> None:
    state, photos = published(name), prepared(pictures, size)
    backbone = backbone_graph(name, state, range(5), size, expanded=True)
    found = run(backbone, photos)
    for level, ours, (output, expanded) in zip(
        backbone.levels, found, timm_maps(name, state, photos), strict=True
    ):
        theirs = output if expanded is None else np.concatenate([expanded, output], axis=1)
        assert (
            ours.shape == theirs.shape == (len(photos), level.channels, level.height, level.width)
        )
        assert level.expanded == (0 if expanded is None else expanded.shape[1])
        # As close as two orders of adding up in float32 are.
        assert np.abs(ours - theirs).max() <= 1e-5 * np.ptp(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_the_tensors_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        model = timm.create_model(f"{name}.in1k")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(tensor_shapes(name).items()) == list(expected.items())
    config = timm.get_pretrained_cfg(f"{name}.in1k")
    assert (*config.mean, *config.std) == (MEAN,) * 3 + (STD,) * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_package_has_the_tensors_of_the_table(name: str) -> None:
    shapes = {tensor: array.shape for tensor, array in published(name).items()}
    assert shapes == tensor_shapes(name)


def test_wider_and_deeper_networks() -> None:
    blocks = {name: [len(stage) for stage in stages(name)] for name in NAMES}
    assert blocks == {
        "tf_efficientnet_lite0": [1, 2, 2, 3, 3, 4, 1],
        "tf_efficientnet_lite1": [1, 3, 3, 4, 4, 5, 1],
        "tf_efficientnet_lite2": [1, 3, 3, 4, 4, 5, 1],
    }
    outputs = [stage[-1].outputs for stage in stages("tf_efficientnet_lite2")]
    assert outputs == [16, 24, 48, 88, 120, 208, 352]


def test_only_what_leads_to_the_levels_is_written() -> None:
    state = random_state("tf_efficientnet_lite0", 0)
    backbone = backbone_graph("tf_efficientnet_lite0", state, (2, 3), (96, 64))
    assert backbone.levels == (Level(40, 12, 8), Level(112, 6, 4))
    assert (backbone.grid, backbone.channels) == ((12, 8), 152)
    names = [node.name for node in onnx.load_model_from_string(backbone.graph).graph.node]
    assert all(name.startswith(BACKBONE) for name in names)
    assert any("blocks.4.2" in name for name in names)
    assert not any("blocks.5" in name or "conv_head" in name for name in names)


def test_expanded_channels_come_before_the_output() -> None:
    state = random_state("tf_efficientnet_lite0", 0)
    photos = np.random.default_rng(0).random((2, 3, 96, 64), np.float32)
    wide, plain = (
        backbone_graph("tf_efficientnet_lite0", state, (0, 2), (96, 64), expanded=expanded)
        for expanded in (True, False)
    )
    assert wide.blocks == ((16, True), (240, False), (40, True))  # the first stage expands nothing
    assert plain.blocks == ((16, True), (40, True))
    for level, with_them, output in zip(
        wide.levels, run(wide, photos), run(plain, photos), strict=True
    ):
        np.testing.assert_allclose(with_them[:, level.expanded :], output, atol=1e-6)


def test_the_graph_is_valid_the_same_every_time_and_may_be_stored() -> None:
    state = random_state("tf_efficientnet_lite0", 0)
    given = "tf_efficientnet_lite0", state, (2, 3), (96, 64)
    graph = backbone_graph(*given).graph
    onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
    assert backbone_graph(*given).graph == graph
    assert checked_graph(graph) == graph
    kinds = {node.op_type for node in onnx.load_model_from_string(graph).graph.node}
    assert kinds == {"Sub", "Conv", "Clip", "Add"}  # neither padding nor normalisation is left


def test_random_weights_follow_the_seed_and_keep_the_scale_of_a_photo() -> None:
    first, again, other = (random_state("tf_efficientnet_lite0", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["conv_stem.weight"], again["conv_stem.weight"])
    assert (first["conv_stem.weight"] != other["conv_stem.weight"]).any()
    photos = np.random.default_rng(0).random((1, 3, 96, 64), np.float32)
    for found in run(backbone_graph("tf_efficientnet_lite0", first, range(5), (96, 64)), photos):
        assert 1e-2 < found.std() < 1e2
