"""What may happen to a network during one training: bit policies, searches and regularisers, each a `Method`."""

from tenfold.methods.adabits import AdaBits
from tenfold.methods.adversarial import Adversarial
from tenfold.methods.atomnas import AtomNAS
from tenfold.methods.attention_diversity import AttentionDiversity, neighbour_similarity
from tenfold.methods.autonl import AutoNL
from tenfold.methods.fracbits import FracBits
from tenfold.methods.method import Method, Pass, create, list_methods, list_options, register
from tenfold.methods.norm_calibration import NormCalibration
from tenfold.methods.qat import QAT
from tenfold.methods.sat import SAT

__all__ = [
    "QAT",
    "SAT",
    "AdaBits",
    "Adversarial",
    "AtomNAS",
    "AttentionDiversity",
    "AutoNL",
    "FracBits",
    "Method",
    "NormCalibration",
    "Pass",
    "create",
    "list_methods",
    "list_options",
    "neighbour_similarity",
    "register",
]
