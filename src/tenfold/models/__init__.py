"""Whole networks: one family a file, and the registry that knows them by name."""

from tenfold.models import (  # noqa: F401 - importing a family registers its models
    atomnas,
    autonl,
    autospace,
    compfeat,
    convnet,
    deepvit_variants,
    efficientnet_lite,
    mobilenet_v1,
    mobilenet_v2,
    multires,
    preresnet,
    resnet,
    resnet_cifar,
    segmenter,
    tsam,
    with_lightnl,
    with_reattention,
)
from tenfold.models.architecture import Architecture, build
from tenfold.models.atomnas_names import load_official_atomnas, official_atomnas_names
from tenfold.models.autonl_names import load_official_autonl, official_autonl_names
from tenfold.models.autonl_text import read_official_blocks
from tenfold.models.autospace_space import LEARNED_SPACE
from tenfold.models.classifier import FeatureInfo, FeatureStages, ImageClassifier
from tenfold.models.deepvit import load_official_deepvit
from tenfold.models.entry import ModelFacts
from tenfold.models.feature_maps import FeatureMaps, feature_maps
from tenfold.models.multires_names import load_official_multires, official_multires_names
from tenfold.models.packaged import list_packaged, packaged_weights
from tenfold.models.registry import facts, list_models, register
from tenfold.models.segmenter import Segmenter, for_pixels
from tenfold.models.tsam import NetworkArguments, PackedWindow, composited
from tenfold.models.tsam_names import is_official_tsam, load_official_tsam, official_tsam_names
from tenfold.models.tsam_stream import TsamStream
from tenfold.models.weights import load_by_position, official_mobilenet_v2_name, read_checkpoint
from tenfold.models.with_reattention import reattention

__all__ = [
    "LEARNED_SPACE",
    "Architecture",
    "FeatureInfo",
    "FeatureMaps",
    "FeatureStages",
    "ImageClassifier",
    "ModelFacts",
    "NetworkArguments",
    "PackedWindow",
    "Segmenter",
    "TsamStream",
    "build",
    "composited",
    "facts",
    "feature_maps",
    "for_pixels",
    "is_official_tsam",
    "list_models",
    "list_packaged",
    "load_by_position",
    "load_official_atomnas",
    "load_official_autonl",
    "load_official_deepvit",
    "load_official_multires",
    "load_official_tsam",
    "official_atomnas_names",
    "official_autonl_names",
    "official_mobilenet_v2_name",
    "official_multires_names",
    "official_tsam_names",
    "packaged_weights",
    "read_checkpoint",
    "read_official_blocks",
    "reattention",
    "register",
]
