"""Gates: the authors' relaxed indicator and its gradients, running means, dropping by lot."""

import json

import pytest
import torch

from tenfold.layers.gates import Choice, Gate, indicator


@pytest.fixture(scope="session")
def reference(shared):
    return json.loads((shared / "reference" / "autonl" / "indicator.json").read_text())


def test_values_and_slopes_equal_the_authors(reference):
    z = torch.tensor(reference["x"], requires_grad=True)
    value = indicator(z)
    assert value.tolist() == reference["forward"]
    value.sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor(reference["gradient"]), atol=1e-7, rtol=1e-5)


def test_a_gated_kernel_has_the_authors_gradients(reference):
    for case in reference["gates"]:
        kernel = torch.linspace(-0.3, 0.5, 18).reshape(3, 3, 2, 1).permute(2, 3, 0, 1).clone().requires_grad_()
        threshold = torch.tensor(case["threshold"], requires_grad=True)
        norm = kernel.square().sum().sqrt()
        gate = indicator(norm - threshold)
        loss = (2 * kernel * gate).sum()
        loss.backward()
        got = (float(norm.detach()), float(gate.detach()), float(loss.detach()), float(threshold.grad))
        expected = (case["norm"], case["gate"], case["loss"], case["grad_threshold"])
        assert got == pytest.approx(expected, abs=1e-5)
        torch.testing.assert_close(kernel.grad, torch.tensor(case["grad_kernel"]), atol=1e-5, rtol=1e-5)


def test_a_fresh_gate_is_open_and_a_tie_is_open_in_training_but_closed_in_the_end():
    gate = Gate()
    assert float(gate.eval()(torch.tensor(0.0))) == 1
    assert float(gate.train()(torch.tensor(0.0)).detach()) == 1
    assert float(gate.eval()(torch.tensor(0.0))) == 0


def test_margins_are_running_means_of_all_batches_at_first():
    gate = Gate()
    for norm in (1.0, 2.0, 6.0):
        gate(torch.tensor(norm))
    assert float(gate.margin) == pytest.approx(3.0)
    with torch.no_grad():
        gate.threshold.fill_(4.0)
    for _ in range(200):
        gate(torch.tensor(1.0))
    assert -3.0 < float(gate.margin) < -1.0
    assert float(gate.eval()(torch.tensor(100.0))) == 0  # no single batch decides


def test_a_smooth_gate_compares_the_running_mean():
    gate = Gate(smooth=True)
    with torch.no_grad():
        gate.threshold.fill_(0.5)
    for _ in range(150):
        gate(torch.tensor(1.0))
    assert float(gate(torch.tensor(0.0)).detach()) == 1
    value = gate.relaxed()
    value.backward()
    assert gate.threshold.grad < 0


def test_gates_are_dropped_by_lot_and_kept_ones_are_raised():
    torch.manual_seed(0)
    gate = Gate()
    gate.keep = 0.6
    values = torch.stack([gate(torch.tensor(1.0)).detach() for _ in range(2000)])
    assert sorted(set(values.tolist())) == pytest.approx([0.0, 1 / 0.6])
    assert float(values.mean()) == pytest.approx(1, abs=0.05)
    assert float(gate.relaxed(torch.tensor(1.0)).detach()) == 1


def test_a_choice_without_gate_is_open_for_good():
    choice = Choice()
    assert not choice.is_open_for_good
    choice.gate = torch.nn.Identity()
    assert choice.is_open_for_good
    assert float(choice(torch.tensor(0.0))) == float(choice.relaxed()) == 1
