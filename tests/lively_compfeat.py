"""An untrained CompFeat that finds something."""

from torch import nn


def enliven(network, *, spread):
    """Draw weights with which a network finds boxes, and its aggregation changes what it finds; in place.

    Args:
        network: a CompFeat.
        spread: deviation of the weights that give classes.
    """
    for layer in (network.proposals.head.bbox_pred, network.heads.box_predictor.bbox_pred):
        nn.init.normal_(layer.weight, std=0.1)
    nn.init.normal_(network.heads.box_predictor.cls_score.weight, std=spread)
    for name, module in network.named_modules():
        if name.endswith(("temporal.out", "spatial.out")):
            nn.init.normal_(module.weight, std=0.05)
