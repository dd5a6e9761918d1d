"""Our networks cost what the papers' tables say, at every bit-width, to the printed digit (sat.md section 6.4)."""

import pytest

from tenfold.cost import profile
from tenfold.models import build

BITS = (2, 3, 4, 5, 6, 8, 32)
TABLE = {  # giga-BitOPs with four decimals (32 bits: three), and megabytes
    "mobilenet_v1": (
        ("2.9375", "5.7301", "9.6365", "14.6566", "20.7904", "36.3994", "582.390"),
        ("1.8249", "2.2229", "2.6210", "3.0190", "3.4170", "4.2131", "16.8404"),
    ),
    "mobilenet_v2": (
        ("1.8687", "3.3223", "5.3531", "7.9612", "11.1467", "19.2496", "307.993"),
        ("1.8321", "2.1057", "2.3793", "2.6529", "2.9265", "3.4738", "13.8830"),
    ),
    "resnet18": (
        ("14.3433", "22.8251", "34.6980", "49.9621", "68.6172", "116.1007", "1857.611"),
        ("3.3148", "4.7095", "6.1042", "7.4988", "8.8935", "11.6829", "46.7196"),
    ),
    "resnet50": (
        ("23.4622", "43.3241", "71.1244", "106.8629", "150.5396", "261.7078", "4187.325"),
        ("7.9228", "10.8535", "13.7842", "16.7148", "19.6455", "25.5069", "102.016"),
    ),
}
TABLE["preresnet50"] = TABLE["resnet50"]


def _as_printed(number: float, printed: str) -> str:
    return f"{number:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.slow  # seven counts of a large network
def test_bitops_and_bytes_equal_the_table(name):
    network = build(name)
    for bits, bitops, megabytes in zip(BITS, *TABLE[name], strict=True):
        cost = profile(network, (3, 224, 224), bits=(bits, bits) if bits < 32 else None)
        assert _as_printed(cost.bitops / 1e9, bitops) == bitops, bits
        assert _as_printed(cost.size_bytes / 1e6, megabytes) == megabytes, bits


@pytest.mark.parametrize("name", TABLE)
def test_bitops_and_bytes_equal_the_official_regularizer(name, shared):
    from reference import Reference

    reference, network = Reference(shared / "reference" / "quant", "regularizers"), build(name)
    cases = [case for case in reference.cases if case["case"].startswith(f"net/q_{name}/") and case["bits"] % 1 == 0]
    assert len(cases) >= 3
    for case in cases:
        bits = int(case["bits"])
        cost, tensors = profile(network, (3, 224, 224), bits=(bits, bits)), reference.tensors(case)
        assert cost.bitops / 1e9 == pytest.approx(float(tensors["bitops"]), rel=1e-6)
        assert cost.size_bytes / 1e6 == pytest.approx(float(tensors["size_mb"]), rel=1e-6)
