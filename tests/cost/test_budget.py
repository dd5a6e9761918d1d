"""What a network may cost."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.cost import Budget
from tenfold.cost.ledger import LayerCost, Profile
from tenfold.errors import UnknownNameError, UsageError

LIMITS = ("macs", "params", "bitops", "bytes", "latency_ms")


def bill(macs=10, params=20, size_bytes=40):
    return Profile(
        (
            LayerCost(
                name="conv",
                kind="conv",
                macs=macs,
                params=params,
                w_bits=4,
                a_bits=2,
                bitops=macs * 8,
                size_bytes=size_bytes,
                input_bytes=1,
                activation_bytes=1,
                output_shape=(1,),
            ),
        )
    )


def test_a_budget_is_read_with_suffixes_and_spaces():
    assert Budget.parse("macs=50M,bytes=300k") == Budget(macs=50_000_000, bytes=300_000)
    assert Budget.parse(" macs = 50 M , latency_ms=8.5 ,bitops=1.2e9") == Budget(
        macs=50_000_000, latency_ms=8.5, bitops=1_200_000_000
    )


@given(
    st.dictionaries(
        st.sampled_from(LIMITS),
        st.one_of(st.integers(1, 10**15), st.floats(1e-3, 1e12)),
        min_size=1,
    )
)
def test_a_budget_survives_text_and_json(limits):
    budget = Budget(**limits)
    assert Budget.parse(str(budget)) == budget
    assert Budget.from_dict(budget.to_dict()) == budget


def test_a_budget_without_limits_is_kept_by_everything():
    assert str(Budget()) == ""
    assert Budget.from_dict({}) == Budget.from_dict({"macs": None}) == Budget()
    assert Budget().excess(bill()) == {}


@pytest.mark.parametrize("text", ["", "macs", "macs=", "=50M", "macs=50M,", "macs=50M,,bytes=3"])
def test_a_piece_that_is_no_limit_is_named(text):
    with pytest.raises(UsageError, match=r"is not name=amount, such as macs=50M,bytes=300k"):
        Budget.parse(text)


def test_an_unknown_limit_gets_a_suggestion_and_the_allowed_ones():
    allowed = "Allowed: macs, params, bitops, bytes, latency_ms"
    with pytest.raises(UnknownNameError, match=f"unknown budget limit 'mac'. Did you mean macs.*{allowed}"):
        Budget.parse("mac=50M")
    with pytest.raises(UnknownNameError, match=r"unknown budget limit 'latency'. Did you mean latency_ms"):
        Budget.from_dict({"latency": 3})
    with pytest.raises(UnknownNameError, match=r"unknown budget limit 'zzz'. Allowed: bitops, bytes"):
        Budget.parse("zzz=1")


def test_a_limit_given_twice_is_refused():
    with pytest.raises(UsageError, match="macs is given twice"):
        Budget.parse("macs=50M,bytes=1k,macs=40M")


@pytest.mark.parametrize("amount", ["-5M", "0", "nan", "5X", "inf", "5 5"])
def test_a_bad_amount_names_its_piece(amount):
    with pytest.raises(UsageError, match=f"budget 'bytes=1k,macs={amount}': macs={amount}: "):
        Budget.parse(f"bytes=1k,macs={amount}")


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, -0.0])
def test_a_limit_that_is_not_above_zero_is_refused(limit):
    with pytest.raises(UsageError, match=r"budget: params=.* is not allowed; a limit is a finite number above zero"):
        Budget(params=limit)


@pytest.mark.parametrize("limit", ["50M", True, [3]])
def test_a_limit_that_is_no_number_is_refused(limit):
    with pytest.raises(UsageError, match=r"budget: macs=.* is not a number.*Budget.parse"):
        Budget(macs=limit)


def test_whole_limits_are_whole_numbers():
    assert repr(Budget(macs=5e7).macs) == "50000000"


def test_excess_names_what_is_not_kept_with_asked_and_got():
    budget = Budget(macs=9, params=20, bitops=79, bytes=39, latency_ms=5)
    assert budget.excess(bill()) == {"macs": (9, 10), "bitops": (79, 80), "bytes": (39, 40)}
    assert budget.excess(bill(), latency_ms=5.5)["latency_ms"] == (5, 5.5)
    assert "latency_ms" not in budget.excess(bill(), latency_ms=5.0)
