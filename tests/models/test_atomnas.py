"""AtomNAS's networks: the authors' names, tensors and costs."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from filling import fill, fill_by_keys, image, probes, statistics
from tenfold.cost import profile
from tenfold.errors import UsageError
from tenfold.layers.atomic import AtomicBlock, FusedAtomicBlock
from tenfold.models import build, load_official_atomnas, official_atomnas_names

NETWORKS = {
    "atomnas_a": "atomnas_a",
    "atomnas_b": "atomnas_b",
    "atomnas_a_plus": "atomnas_a_plus",
    "atomnas_supernet_a": "supernet_a",
}


def _folder(shared):
    return shared / "reference" / "atomnas"


def _filled(shared, name):
    """A network with the reference's weights, its tensors and its facts."""
    reference = NETWORKS[name]
    facts = json.loads((_folder(shared) / f"net_{reference}_seed1.json").read_text())
    keys = json.loads((_folder(shared) / f"keys_{reference}.json").read_text())
    network = build(name, dropout=0.0).double()
    load_official_atomnas(network, fill_by_keys(keys, facts["seed"], facts["conv_amplitude"]))
    return network, load_file(_folder(shared) / f"net_{reference}_seed1.safetensors"), facts


@pytest.mark.parametrize("name", NETWORKS)
def test_names_are_those_of_the_authors(shared, name):
    keys = json.loads((_folder(shared) / f"keys_{NETWORKS[name]}.json").read_text())
    assert [official for _, official in official_atomnas_names(build(name))] == [row[1] for row in keys]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_logits_equal_the_official_ones(shared, name):
    network, tensors, facts = _filled(shared, name)
    network.eval()
    seen = []
    modules = [network.stem, network.stage0[0], *(network.get_submodule(block) for block, *_ in network.blocks)]
    for module in [*modules, network.tail, network.pool]:
        module.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    with torch.no_grad():
        logits = network(image(facts["batch"], 3, 224, 224, facts["seed"]))
    limit = 1e-9 * float(tensors["eval.logits"].abs().max())
    torch.testing.assert_close(logits, tensors["eval.logits"], atol=limit, rtol=0)
    blocks = [one for one in seen if one.dim() == 4][: len(modules) + 2]
    for index, feature in enumerate(blocks):
        torch.testing.assert_close(statistics(feature), tensors["eval.feature_stats"][index], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(probes(feature), tensors["eval.feature_probes"][index], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["atomnas_a", "atomnas_a_plus"])
def test_a_training_step_equals_the_official_one(shared, name):
    network, tensors, facts = _filled(shared, name)
    options = facts["train"]
    network.train()
    images = image(options["batch"], 3, options["resolution"], options["resolution"], options["input_seed"])
    logits = network(images)
    limit = 1e-9 * float(tensors["train.logits"].abs().max())
    torch.testing.assert_close(logits, tensors["train.logits"], atol=limit, rtol=0)
    parameters = dict(network.named_parameters())
    names = {official: own for own, official in official_atomnas_names(network) if own in parameters}
    loss = F.cross_entropy(logits, torch.tensor(options["targets"]), label_smoothing=options["label_smoothing"])
    decayed = [p for n, p in parameters.items() if p.dim() == 4 or n.startswith("classifier")]
    l2 = 0.5 * options["weight_decay"] * sum(p.square().sum() for p in decayed)
    weights = facts["train"].get("l1_weights", facts.get("l1_weights", []))
    l1 = options["l1_lambda"] * sum(w * parameters[names[n]].abs().sum() for n, w in weights)
    expected = tensors["train.loss_terms"]
    for term, value in zip((loss, l2, l1), expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(term).double(), value, atol=1e-9, rtol=1e-9)
    (loss + l2 + l1).backward()
    for official, norm in zip(options["param_names"], tensors["train.grad_norms"], strict=True):
        gradient = parameters[names[official]].grad
        assert abs(float(gradient.norm()) - float(norm)) <= 1e-9 + 1e-6 * float(norm), official


CASES = ("s1_res", "s2_nores", "s1_two_groups_swish", "noexpand_res")


def _block(facts, fused):
    kind = FusedAtomicBlock if fused else AtomicBlock
    atoms = dict(zip(facts["kernels"], facts["channels"], strict=True))
    activation = "swish" if "wish" in facts["act"] else "relu"
    options = {"stride": facts["stride"], "expands": facts["expand"], "activation": activation}
    if fused:
        options["squeezed"] = facts["se_hidden"]
    return kind(facts["inp"], facts["oup"], atoms, **options).double()


def _poured(block, tensors, prefix):
    """A block with the authors' state: the same tensors in the same order, under their names."""
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    order = _official_names(block)
    assert set(order.values()) == set(state)
    block.load_state_dict({own: state[official] for own, official in order.items()})
    return order


def _official_names(block):
    from tenfold.models.atomnas_names import _official_part

    return {name: _official_part(block, name) for name in block.state_dict()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_block_equals_the_official_one(shared, case, mode):
    facts = json.loads((_folder(shared) / "blocks.json").read_text())[case]
    tensors = load_file(_folder(shared) / f"block_{case}.safetensors")
    block = _block(facts, fused=False)
    names = _poured(block, tensors, "state.")
    block.train(mode == "train")
    x = tensors["input"].clone().requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, tensors[f"{mode}.output"], atol=1e-10, rtol=1e-10)
    y.backward(tensors["grad_output"])
    torch.testing.assert_close(x.grad, tensors[f"{mode}.grad_input"], atol=1e-10, rtol=1e-10)
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(parameter.grad, tensors[f"{mode}.grad.{names[name]}"], atol=1e-10, rtol=1e-10)
    if mode == "train":
        for name, buffer in block.named_buffers():
            if "running" in name:
                torch.testing.assert_close(buffer, tensors[f"train.after.{names[name]}"], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_fused_block_with_squeeze_and_excitation_equals_the_official_one(shared, case, mode):
    facts = json.loads((_folder(shared) / "blocks.json").read_text())[case]
    tensors = load_file(_folder(shared) / f"block_{case}.safetensors")
    block = _block(facts, fused=True)
    _poured(block, tensors, "fused_se.state.")
    block.train(mode == "train")
    x = tensors["input"].clone().requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, tensors[f"fused_se.{mode}.output"], atol=1e-10, rtol=1e-10)
    y.backward(tensors["grad_output"])
    torch.testing.assert_close(x.grad, tensors[f"fused_se.{mode}.grad_input"], atol=1e-10, rtol=1e-10)


def test_both_layouts_compute_the_same():
    torch.manual_seed(0)
    atoms = {3: 5, 7: 2}
    branches, fused = AtomicBlock(4, 4, atoms).double().eval(), FusedAtomicBlock(4, 4, atoms).double().eval()
    parts = list(branches.branches.values())
    fused.expand.conv.weight.data = torch.cat([part.expand.conv.weight.data for part in parts])
    fused.project.conv.weight.data = torch.cat([part.project.weight.data for part in parts], 1)
    for part, group in zip(parts, fused.depthwise.values(), strict=True):
        group.load_state_dict(part.depthwise.state_dict())
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(branches(x), fused(x), atol=1e-12, rtol=0)


def test_blocks_cost_what_the_authors_count(shared):
    found = json.loads((_folder(shared) / "architectures.json").read_text())
    for own, theirs in {
        "atomnas_c": "atomnas_c",
        "atomnas_b_plus": "atomnas_b+",
        "atomnas_supernet": "supernet_c",
    }.items():
        network = build(own)
        counted = profile(network, (3, 224, 224))
        for (block, *_), row in zip(network.blocks, found[theirs]["blocks"][1:], strict=True):
            assert sum(one.macs for one in counted.layers if one.name.startswith(f"{block}.")) == row["macs"], block


def test_a_block_without_atoms_must_keep_the_shape():
    network = build("atomnas", blocks=[[16, 1, 0, 0, 0], [24, 2, 4, 0, 0]], stem=16, num_classes=3)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    with pytest.raises(UsageError, match="only a block that keeps the shape can be empty"):
        build("atomnas", blocks=[[24, 2, 0, 0, 0]])


def test_a_checkpoint_of_another_network_is_refused(shared):
    keys = json.loads((_folder(shared) / "keys_atomnas_b.json").read_text())
    with pytest.raises(UsageError, match="the weights do not fit"):
        load_official_atomnas(build("atomnas_a"), fill_by_keys(keys, 1, 1.6))


def test_the_recipe_of_the_reference_is_the_one_that_it_states():
    assert abs(float(fill(0, (3,), "bias", 1, 1.0)[0]) / 0.1 + 0.600887704408) < 1e-9
