from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from timm.layers import Conv2dSame

from reconpatch.errors import ModelFileError, PhotoError, SettingsError
from reconpatch.features.backbones import load_backbone, load_graph, spec
from reconpatch.features.extractor import Extractor, FeatureExtractor, format_grid, parse_grid
from reconpatch.features.feature_graph import feature_graph
from reconpatch.features.feature_maps import export_maps, fix_padding
from reconpatch.features.patch_features import (
    PatchFeatures,
    TorchFeatureExtractor,
    average_neighbourhood,
    join_levels,
)

Array = npt.NDArray[np.float32]
SIZE = (96, 64)  # not square, so that a swap of the axes shows


def photos(count: int, size: tuple[int, int] = SIZE) -> Array:
    return np.random.default_rng(0).random((count, 3, *size), dtype=np.float32)


def patch_features(
    name: str,
    levels: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
    *,
    expanded: bool = False,
) -> PatchFeatures:
    backbone = load_backbone(
        spec(name, levels), weights="random", input_size=size, expanded=expanded
    )
    return PatchFeatures(backbone.module, backbone.mean, backbone.std)


def export_onnx(module: PatchFeatures, size: tuple[int, int]) -> bytes:
    """The graph of the same steps, on the backbone as torch writes it."""
    mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    return feature_graph(export_maps(module.backbone, mean, std, size), module.neighbourhood)


@pytest.fixture(scope="module")
def lite() -> PatchFeatures:
    return patch_features("tf_efficientnet_lite0")


@pytest.fixture(scope="module")
def graph(lite: PatchFeatures) -> bytes:
    return export_onnx(lite, SIZE)


# Slow and obvious twins of the fast routines.


def slow_average(level: Array, s: int) -> Array:
    out = np.zeros_like(level)
    _, _, height, width = level.shape
    reach = s // 2
    for y in range(height):
        for x in range(width):
            for v in range(y - reach, y + reach + 1):
                for u in range(x - reach, x + reach + 1):
                    if 0 <= v < height and 0 <= u < width:
                        out[:, :, y, x] += level[:, :, v, u] / s**2
    return out


def slow_resize(level: Array, grid: tuple[int, int]) -> Array:
    _, _, height, width = level.shape
    out = np.zeros((*level.shape[:2], *grid), dtype=np.float32)
    for y in range(grid[0]):
        for x in range(grid[1]):
            v = min(max((y + 0.5) * height / grid[0] - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / grid[1] - 0.5, 0), width - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = level[:, :, top, left] * (1 - u + left) + level[:, :, top, right] * (u - left)
            lower = level[:, :, bottom, left] * (1 - u + left) + level[:, :, bottom, right] * (
                u - left
            )
            out[:, :, y, x] = upper * (1 - v + top) + lower * (v - top)
    return out


class Pyramid(torch.nn.Module):
    """A backbone whose levels are the photo itself and each third pixel of its first colour."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x, x[:, :1, ::3, ::3]]


class TestAverageNeighbourhood:
    @pytest.mark.parametrize("s", [1, 3, 5])
    def test_equals_the_loop(self, s: int) -> None:
        level = np.random.default_rng(s).normal(size=(2, 3, 6, 4)).astype(np.float32)
        fast = average_neighbourhood(torch.from_numpy(level), s).numpy()
        np.testing.assert_allclose(fast, slow_average(level, s), atol=1e-6)

    def test_counts_places_outside_as_zeros(self) -> None:
        average = average_neighbourhood(torch.ones(1, 1, 3, 3), 3)[0, 0]
        expected = torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
        torch.testing.assert_close(average, expected)

    def test_of_one_place_changes_nothing(self) -> None:
        level = torch.rand(1, 2, 4, 3)
        assert torch.equal(average_neighbourhood(level, 1), level)


class TestJoinLevels:
    @pytest.mark.parametrize("coarse", [(4, 3), (3, 2), (1, 1), (8, 6)])
    def test_equals_the_loop(self, coarse: tuple[int, int]) -> None:
        rng = np.random.default_rng(1)
        fine = rng.normal(size=(2, 3, 8, 6)).astype(np.float32)
        other = rng.normal(size=(2, 2, *coarse)).astype(np.float32)
        joined = join_levels([torch.from_numpy(fine), torch.from_numpy(other)]).numpy()
        expected = np.concatenate([fine, slow_resize(other, (8, 6))], axis=1)
        np.testing.assert_allclose(joined, expected, atol=1e-6)

    def test_by_hand(self) -> None:
        joined = join_levels([torch.zeros(1, 1, 1, 4), torch.tensor([[[[0.0, 1.0]]]])])
        assert joined[0, 1, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


class TestPatchFeatures:
    def test_rows_are_the_normalised_places_in_raster_order(self) -> None:
        mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
        module = PatchFeatures(Pyramid(), mean, std, neighbourhood=3)
        x = photos(2, (6, 9))
        normalised = (x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        normalised = normalised.astype(np.float32)
        fine = slow_average(normalised, 3)
        coarse = slow_resize(slow_average(normalised[:, :1, ::3, ::3], 3), (6, 9))
        expected = np.concatenate([fine, coarse], axis=1)
        p = module(torch.from_numpy(x)).numpy()
        assert p.shape == (2, 6 * 9, 4)
        for y, column in [(0, 0), (0, 8), (2, 5), (5, 0)]:
            np.testing.assert_allclose(p[:, y * 9 + column], expected[:, :, y, column], atol=1e-5)

    def test_shape(self, lite: PatchFeatures) -> None:
        assert lite.shape(SIZE) == (40 + 112, 12, 8)
        assert lite.shape((64, 64)) == (152, 8, 8)

    @pytest.mark.parametrize("s", [0, 2, -1])
    def test_refuses_a_neighbourhood_without_a_middle(self, s: int) -> None:
        with pytest.raises(SettingsError, match=f"neighbourhood of {s} was given"):
            PatchFeatures(Pyramid(), (0, 0, 0), (1, 1, 1), s)


class TestExpandedActivations:
    def test_are_what_the_last_block_of_a_level_projects_beside_its_output(self) -> None:
        given = spec("tf_efficientnet_lite0"), torch.from_numpy(photos(2))
        wide, plain = (
            load_backbone(given[0], weights="random", input_size=SIZE, expanded=expanded).module
            for expanded in (True, False)
        )
        projected: list[torch.Tensor] = []
        for stage in ("blocks.2", "blocks.4"):
            block = plain.model.get_submodule(stage)[-1]
            block.conv_pwl.register_forward_pre_hook(lambda _, x: projected.append(x[0]))
        outputs = plain(given[1])
        assert [p.shape[1] for p in projected] == [240, 672]
        for _ in range(2):  # nothing is left over from the photos before
            maps = wide(given[1])
            assert wide.expanded_channels == (240, 672)
            for found, expanded, output in zip(maps, projected, outputs, strict=True):
                torch.testing.assert_close(found, torch.cat([expanded, output], 1))
        assert plain.expanded_channels == (0, 0)

    @pytest.mark.parametrize(
        ("name", "levels", "blocks"),
        [
            (
                "tf_efficientnet_lite0",
                None,
                [(240, False), (40, True), (672, False), (112, True)],
            ),
            # The first stage of an EfficientNet expands nothing.
            ("tf_efficientnet_lite0", (0, 2), [(16, True), (240, False), (40, True)]),
            ("resnet18", (2, 3), [(128, True), (256, True)]),
            ("test_vit", (2, 4), [(64, True), (64, True)]),
        ],
    )
    def test_blocks_say_which_channels_are_which(
        self, name: str, levels: Sequence[int] | None, blocks: list[tuple[int, bool]]
    ) -> None:
        graph, outputs = (
            load_graph(spec(name, levels), weights="random", input_size=SIZE, expanded=expanded)[0]
            for expanded in (True, False)
        )
        assert list(graph.blocks) == blocks
        assert sum(channels for channels, _ in blocks) == graph.channels
        assert [block for block in blocks if block[1]] == list(outputs.blocks)

    def test_a_backbone_without_them_gives_its_outputs_alone(self) -> None:
        x = torch.from_numpy(photos(2))
        wide = patch_features("resnet18", (2, 3), expanded=True)
        assert torch.equal(wide(x), patch_features("resnet18", (2, 3))(x))

    def test_are_in_the_graph(self) -> None:
        module = patch_features("tf_efficientnet_lite0", expanded=True)
        x = photos(2)
        expected = TorchFeatureExtractor(module, SIZE)(x)
        assert expected.shape[2] == 240 + 40 + 672 + 112
        p = FeatureExtractor(export_onnx(module, SIZE))(x)
        np.testing.assert_allclose(p, expected, atol=1e-4 * np.abs(expected).max())


class SamePadded(torch.nn.Module):
    """TensorFlow's convolutions of several sizes, strides and groups, the last one not in use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dSame(3, 4, 3, stride=2)
        self.blocks = torch.nn.Sequential(
            Conv2dSame(4, 4, 5, stride=2, groups=4, bias=False),
            Conv2dSame(4, 6, (2, 3), stride=(1, 3), dilation=2),
        )
        self.head = Conv2dSame(6, 6, 7, stride=2)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.blocks(self.stem(x))]


class TestFixPadding:
    @pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 90)])
    def test_changes_no_map(self, size: tuple[int, int]) -> None:
        module, x = SamePadded(), torch.from_numpy(photos(2, size))
        before = module(x)[0]
        fix_padding(module, size)
        # Zeros inside a convolution may go to another kernel, which adds in another order: a few
        # units in the last place of maps of about 0.1. A zero too many changes them by 0.01.
        torch.testing.assert_close(module(x)[0], before, rtol=0, atol=1e-6)
        assert type(module.head) is Conv2dSame

    @pytest.mark.parametrize("size", [(64, 64), (65, 47)])
    def test_is_part_of_the_convolutions_in_the_graph(self, size: tuple[int, int]) -> None:
        module = SamePadded()
        before = export_onnx(PatchFeatures(module, (0, 0, 0), (1, 1, 1), 1), size)
        fix_padding(module, size)
        after = export_onnx(PatchFeatures(module, (0, 0, 0), (1, 1, 1), 1), size)
        kinds = {node.op_type for node in onnx.load_model_from_string(after).graph.node}
        assert not kinds & {"Pad", "Ceil"}
        x = photos(2, size)
        # Of two graphs, so of two kernels: see above.
        ours, expected = FeatureExtractor(after, 1)(x), FeatureExtractor(before, 1)(x)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


class TestExport:
    def test_no_padding_is_worked_out_for_each_photo(self, graph: bytes) -> None:
        kinds = {node.op_type for node in onnx.load_model_from_string(graph).graph.node}
        assert not kinds & {"Pad", "Ceil"}

    def test_the_graph_is_valid_and_says_its_sizes(self, graph: bytes) -> None:
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
        (given,), (result,) = model.graph.input, model.graph.output
        sizes = [
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (given, result)
        ]
        assert (given.name, result.name) == ("photos", "features")
        assert sizes == [["batch", 3, 96, 64], ["batch", 12 * 8, 152]]

    def test_equal_modules_give_equal_bytes(self, graph: bytes) -> None:
        assert export_onnx(patch_features("tf_efficientnet_lite0"), SIZE) == graph

    def test_holds_no_paths_of_this_machine(self, graph: bytes) -> None:
        assert torch.__path__[0].encode() not in graph
        assert b"site-packages" not in graph

    def test_is_silent(self, lite: PatchFeatures, capfd: pytest.CaptureFixture[str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            export_onnx(lite, (32, 32))
        assert capfd.readouterr() == ("", "")

    def test_leaves_the_warning_filters_alone(self, lite: PatchFeatures) -> None:
        before = list(warnings.filters)
        export_onnx(lite, (32, 32))
        assert list(warnings.filters) == before


class TestFeatureExtractor:
    @pytest.mark.parametrize(
        ("name", "levels", "size"),
        [
            ("tf_efficientnet_lite0", None, (64, 96)),
            ("tf_efficientnet_lite0", (1, 2, 4), (70, 45)),
            ("test_resnet", (1, 2, 3), (64, 64)),
            ("test_vit", (2, 4), (96, 64)),
            ("vit_small_patch14_dinov2", (0, 1), (28, 42)),
            ("vit_small_patch16_dinov3", (0, 1), (32, 48)),
        ],
    )
    def test_agrees_with_torch(
        self, name: str, levels: Sequence[int] | None, size: tuple[int, int]
    ) -> None:
        module = patch_features(name, levels, size)
        onnx_side: Extractor = FeatureExtractor(export_onnx(module, size))
        torch_side: Extractor = TorchFeatureExtractor(module, size)
        x = photos(3, size)
        p, expected = onnx_side(x), torch_side(x)
        assert onnx_side.grid == torch_side.grid
        assert onnx_side.channels == torch_side.channels
        assert onnx_side.input_size == torch_side.input_size == size
        assert p.shape == (3, onnx_side.grid[0] * onnx_side.grid[1], onnx_side.channels)
        assert p.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(p, expected, atol=1e-4 * np.abs(expected).max())

    def test_a_photo_has_the_same_features_in_any_batch(self, graph: bytes) -> None:
        extract = FeatureExtractor(graph, threads=2)
        x = photos(5)
        together = extract(x)
        np.testing.assert_array_equal(together, extract(x))  # equal fits are equal to the bit
        alone = np.concatenate([extract(x[i : i + 1]) for i in range(5)])
        # Another batch may be another kernel.
        np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(together).max())

    def test_takes_photos_that_are_not_contiguous(self, graph: bytes) -> None:
        extract = FeatureExtractor(graph, threads=1)
        rows_last = np.ascontiguousarray(photos(2).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(extract(rows_last), extract(photos(2)))  # one array to it

    @pytest.mark.parametrize(
        "wrong",
        [
            photos(1, (64, 96)),
            photos(1)[0],
            photos(1)[:0],
            photos(1).astype(np.float64),
            photos(1)[:, :1],
        ],
        ids=["turned", "no batch", "none", "float64", "mono"],
    )
    def test_refuses_other_arrays(self, graph: bytes, wrong: Array) -> None:
        with pytest.raises(PhotoError, match=r"takes float32 of shape \(1 or more, 3, 96, 64\)"):
            FeatureExtractor(graph)(wrong)

    @pytest.mark.parametrize("cut", [0, 7, 100_000])
    def test_refuses_a_damaged_graph(
        self, graph: bytes, cut: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ModelFileError, match="cannot be read by ONNX Runtime"):
            FeatureExtractor(graph[:cut])
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("grid", [None, "", "12", "7x7", "axb"])
    def test_refuses_a_graph_without_its_sizes(self, graph: bytes, grid: str | None) -> None:
        model = onnx.load_model_from_string(graph)
        onnx.helper.set_model_props(model, {} if grid is None else {"grid": grid})
        with pytest.raises(ModelFileError, match="lacks the sizes"):
            FeatureExtractor(model.SerializeToString())

    def test_grid_text_round_trip(self) -> None:
        assert format_grid((12, 8)) == "12x8"
        assert parse_grid("12x8") == (12, 8)


class TestTorchFeatureExtractor:
    def test_refuses_an_unknown_device(self, lite: PatchFeatures) -> None:
        with pytest.raises(SettingsError, match="device 'abacus' was given"):
            TorchFeatureExtractor(lite, SIZE, device="abacus")

    def test_refuses_other_arrays(self, lite: PatchFeatures) -> None:
        with pytest.raises(PhotoError):
            TorchFeatureExtractor(lite, SIZE)(photos(1, (64, 96)))
