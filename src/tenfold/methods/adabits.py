"""One network that runs at several bit-widths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.cost import Budget
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods.attention_products import check_attention_products
from tenfold.methods.method import Method, Pass, register
from tenfold.methods.sat import SAT, RescaledLayers
from tenfold.methods.uniform import SchemeChoice, check_options, layer_bits, part_names, survey_for
from tenfold.methods.width_search import FEWEST_BITS, WidthSearch, fix_widths
from tenfold.quant import (
    FLOAT_BITS,
    QuantProduct,
    Switch,
    SwitchableBatchNorm,
    activation_quantizers,
    calibrate,
    find_switch,
    make_switchable,
    quantized_layers,
    quantized_parts,
)
from tenfold.quant.switching import Norms, Width, as_width, check_widths, width_text, widths_text

Training = Literal["joint", "direct", "descending", "ascending"]
_LOG = logging.getLogger("tenfold")
_LOWEST_WITHOUT_CENTERED = 4
_RUNAWAY = 4.0
"""A clipping level this many times its start quantizes everything to zero soon."""


@register
@dataclass(kw_only=True)
class AdaBits(Method):
    """Train one set of weights to run at any bit-width of a list.

    Each batch runs at every width, and the gradients are summed. Codes nest, so the widest hold all others. Batch norms
    and clipping levels are private to a width.

    Source: AdaBits (arXiv 1912.09666) with SAT's scale adjustment; `adabits.md`. The other ways to train are those that
    the paper compares with.
    """

    name: ClassVar[str] = "adabits"

    bits: tuple[Any, ...] = (8, 6, 5, 4)
    """The widths: numbers, or pairs (weight bits, activation bits)."""
    training: Training = "joint"
    """"joint"; "direct": only the first width trains, the others get its weights; "descending" or "ascending": one
    width after another, each for an equal part of the training (set train.cycles to as many as there are widths)."""
    norms: Norms = "private"
    """Batch norms: "private" to each width, "shared" by all, or private "statistics" with one scale and shift."""
    private_levels: bool = True
    """A clipping level for each width (S-CL)."""
    scheme: SchemeChoice = "auto"
    """Grid of the weights; "auto" is "centered" if weights may have 3 bits or less, at a width or in a search (there
    "modified" drags all widths down), else "modified"."""
    rescale: RescaledLayers = "auto"
    """Layers with SAT's scale adjustment."""
    two_sided: bool | None = None
    """Whether inputs may be negative; None: decided per layer from the data."""
    calibrated: bool = True
    """CG-PACT's gradient for the clipping levels instead of PACT's."""
    attention_products: bool = False
    """Whether the products of attention are quantized, too: queries with keys, maps with values."""
    only: Sequence[str] = ()
    """Quantize these parts of the network only, such as "backbone": modules by name, with all inside; none: all."""
    distillation: float = 0.0
    """How much the answers of the widest width teach the narrower ones; 0 is off, as in the paper. Batches then run at
    the widest width first, else in the order of the list."""
    calibration_batches: int = 20
    """Training batches that set the batch norms of widths that were not trained last ("direct" and the like)."""
    search_share: float = 0.0
    """Part of the training in which every layer learns its own bits at every width, under the BitOPs of the same bits
    everywhere; then they are rounded within that limit and fixed. 0 is off, as in the paper."""
    kappa: float = 5.0
    """Of the search: the weight of the cost in the loss."""
    bits_rate: float = 1.0
    """Of the search: the learning rate of the bits over that of the weights."""

    _stage: int = field(default=0, init=False, repr=False)
    _trained: bool = field(default=False, init=False, repr=False)
    _taught: Tensor | None = field(default=None, init=False, repr=False)
    _search: WidthSearch | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.bits, list | tuple):
            raise UsageError(f"bits must be a list of numbers or pairs, such as [8, 6, [4, 8]]; got {self.bits!r}.")
        super().__post_init__()
        self.widths: list[Width] = check_widths([as_width(one) for one in self.bits])
        self.bits = tuple(w if w == a else (w, a) for w, a in self.widths)
        if self.training not in get_args(Training):
            raise UnknownNameError("way of training", self.training, get_args(Training))
        if self.norms not in get_args(Norms):
            raise UnknownNameError("choice of batch norms", self.norms, get_args(Norms))
        if self.scheme == "auto":
            lowest = min([w for w, _ in self.widths] + ([FEWEST_BITS] if self.search_share else []))
            self.scheme = "modified" if lowest >= _LOWEST_WITHOUT_CENTERED else "centered"
        check_options(*self.widths[0], self.scheme)
        given = [a for _, a in self.widths]
        check_attention_products(self.attention_products, min(given), max(given))
        self.only = part_names(self.only)
        if not self.calibration_batches >= 1:
            raise UsageError(f"calibration_batches must be a whole number, 1 or more; got {self.calibration_batches}.")
        if not self.distillation >= 0:
            raise UsageError(f"distillation must be 0 (off) or more; got {self.distillation}.")
        if self.distillation and self.training != "joint":
            raise UsageError(f"distillation needs all widths in each batch; training={self.training!r} has one.")
        if not 0 <= self.search_share <= 1 or not self.kappa >= 0 or not self.bits_rate > 0:
            raise UsageError(
                f"search_share={self.search_share}, kappa={self.kappa}, bits_rate={self.bits_rate}: allowed are 0 to "
                "1, 0 or more, and above 0."
            )
        if self.search_share and self.training != "joint":
            raise UsageError(f"bits are learned at all widths in each batch; training={self.training!r} has one.")

    def attach(self, network: nn.Module, budget: Budget | None, example: Tensor) -> nn.Module:
        """Quantize all layers by the rules of SAT, and give each the widths of the list.

        Raises:
            UsageError: if the network is quantized already, or has nothing to quantize.
        """
        facts = survey_for(network, example, self.attention_products, self.only)
        self._warn_of_float()
        wide, high = (max(bits) for bits in zip(*self.widths, strict=True))
        base = SAT(
            w_bits=wide,
            a_bits=high,
            scheme=self.scheme,
            a_scheme="auto" if min(a for _, a in self.widths) > 1 else "original",
            rescale=self.rescale,
            two_sided=self.two_sided,
            calibrated=self.calibrated,
            attention_products=self.attention_products,
            only=self.only,
        )
        network = base.attach(network, None, example)
        layers = {name: [layer_bits(fact, w, a) for w, a in self.widths] for name, fact in facts.items()}
        for name, part in quantized_parts(network):
            if isinstance(part, QuantProduct):
                layers[name] = [(a, a) for _, a in self.widths]
        network = make_switchable(network, self.widths, layers, norms=self.norms, private_levels=self.private_levels)
        network.to(example.device)
        if self.search_share:
            self._search = WidthSearch(network, _switch(network), facts, example[:2], self.bits_rate)
            self._search.record(0)
            network.to(example.device)
        return network

    def _warn_of_float(self) -> None:
        """Say what a float width costs before it is trained."""
        for what, bits in zip(("weights", "activations"), zip(*self.widths, strict=True), strict=True):
            if FLOAT_BITS in bits and set(bits) != {FLOAT_BITS}:
                _LOG.warning(
                    "the %s are float at some of the widths %s, and integers at others: no switchable file can hold "
                    "both. Take 8 bits instead of 32, or export each width to a file of its own (--bits).",
                    what,
                    widths_text(self.widths),
                )

    def penalty(self, network: nn.Module) -> Tensor | None:
        """The distance of each width's cost from its limit, while bits are learned."""
        return None if self._search is None else self._search.penalty(self.kappa)

    def status(self) -> dict[str, str]:
        """The mean bits of weights at each width, where they are learned."""
        return {} if self._search is None else self._search.status()

    def report(self, network: nn.Module) -> dict[str, Any]:
        """The bits of each layer at each width, where they are learned, and the way there."""
        if self._search is None:
            return {}
        return {"widths": self._search.report(), "trajectory": self._search.trajectory}

    def passes(self, network: nn.Module) -> Sequence[Pass]:
        """One pass at every width that trains now; after the training, at every width, the widest first."""
        if self._trained or self.distillation:  # who teaches comes before those who learn
            return self._at(network, self._ascending[::-1])
        if self.training == "joint":
            return self.settings(network)
        return self._at(network, [self._order[self._stage]])

    def settings(self, network: nn.Module) -> Sequence[Pass]:
        """Every width, in the order of the list."""
        return self._at(network, range(len(self.widths)))

    def _at(self, network: nn.Module, positions: Sequence[int]) -> list[Pass]:
        switch, widest = _switch(network), max(positions, key=lambda at: self.widths[at])
        return [
            Pass(
                name=width_text(self.widths[at]),
                enter=_entering(switch, at),
                adjust=self._teaching(at == widest) if self.distillation else None,
            )
            for at in positions
        ]

    @property
    def _order(self) -> list[int]:
        """The positions that train, one after another, where not all train together."""
        ascending = self._ascending
        return {"direct": [0], "ascending": ascending, "descending": ascending[::-1]}[self.training]

    @property
    def _ascending(self) -> list[int]:
        """The positions of the widths, the narrowest first."""
        return sorted(range(len(self.widths)), key=lambda at: self.widths[at])

    def _teaching(self, is_teacher: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """The widest width keeps its answers; the others are drawn towards them."""

        def adjust(outputs: Tensor, loss: Tensor) -> Tensor:
            if is_teacher:
                self._taught = outputs.detach()
                return loss
            assert self._taught is not None  # the widest runs first
            wanted, got = F.log_softmax(self._taught.float(), dim=1), F.log_softmax(outputs.float(), dim=1)
            answers = outputs.numel() / outputs.shape[1]  # one an image, or one a pixel
            distance = F.kl_div(got, wanted, log_target=True, reduction="sum") / answers
            return loss + self.distillation * distance

        return adjust

    @contextmanager
    def batch(self, network: nn.Module) -> Iterator[None]:
        """Normalize each weight once for all widths."""
        if self.training != "joint":
            yield
            return
        with ExitStack() as stack:
            for _, layer in quantized_layers(network):
                stack.enter_context(layer.weight_quantizer.sharing_normalization(layer.weight))
            self._taught = None
            yield

    def step_end(self, run: Any) -> None:
        """Go on to the next width where they train one after another, or with the search; watch the levels."""
        if run.step % run.steps_per_epoch == 0:
            self._watch_levels(run.network)
        if self._search is not None and not self._search.frozen:
            self._search.project()
            if run.step % run.steps_per_epoch == 0:
                self._search.record(run.step)
            if run.step >= round(self.search_share * run.total_steps):
                self._search.freeze()
                self._search.record(run.step)
                self.resumed(run)
        if self.training in ("joint", "direct"):
            return
        stage = min(run.step * len(self._order) // run.total_steps, len(self._order) - 1)
        if stage > self._stage:
            for network in (run.network, *([] if run.average is None else [run.average.module])):
                _inherit_norms(network, self._order[self._stage], self._order[stage])
            self._stage = stage

    def _watch_levels(self, network: nn.Module) -> None:
        for name, quantizer in activation_quantizers(network).items():
            levels = quantizer.alpha.detach().abs().reshape(-1)
            if float(levels.max()) > _RUNAWAY * quantizer.initial_level:
                _LOG.warning(
                    "the clipping level of %s has grown to %.1f; its inputs may all become zero soon. "
                    'Use scheme="centered", or a lower learning rate.',
                    name,
                    float(levels.max()),
                )

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """Set the batch norms of the widths whose weights have changed since they trained; end at the widest width."""
        self._trained = True
        switch = _switch(network)
        if self._search is not None:
            if not self._search.frozen:
                self._search.freeze()
            self._search.freeze_twin(network)
            fix_widths(network)
        if self.training != "joint":
            images = list(islice(batches, self.calibration_batches))
            last = self._order[-1]
            for position in range(len(self.widths)):
                switch.position = position
                if position != last and images:
                    if self.training == "direct":
                        _inherit_all(network, last, position)
                    calibrate(network, images, levels=False)
        switch.position = max(range(len(self.widths)), key=lambda at: self.widths[at])
        return network

    def state_dict(self) -> dict[str, Any]:
        """Which width trains, where one does after another; the bits, where they were learned and fixed."""
        return {"stage": self._stage, "search": None if self._search is None else self._search.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._stage = int(state["stage"])
        if self._search is not None:
            self._search.load_state_dict(state["search"])

    def resumed(self, run: Any) -> None:
        """Fix the bits of the weight average where those of the network are fixed."""
        if self._search is not None and self._search.frozen and run.average is not None:
            self._search.freeze_twin(run.average.module)

    def to_dict(self) -> dict[str, Any]:
        """The kind and the options, as a recipe writes them."""
        options = super().to_dict()
        options["bits"] = [list(one) if isinstance(one, tuple) else one for one in self.bits]
        return options


def _switch(network: nn.Module) -> Switch:
    switch = find_switch(network)
    assert switch is not None
    return switch


def _entering(switch: Switch, position: int) -> Callable[[], None]:
    def enter() -> None:
        switch.position = position

    return enter


@torch.no_grad()
def _inherit_norms(network: nn.Module, source: int, target: int) -> None:
    """Give one width the batch norms of another."""
    for module in network.modules():
        if isinstance(module, SwitchableBatchNorm):
            module.choices[target].load_state_dict(module.choices[source].state_dict())


@torch.no_grad()
def _inherit_all(network: nn.Module, source: int, target: int) -> None:
    """Give one width all that another has learned for itself."""
    _inherit_norms(network, source, target)
    for quantizer in activation_quantizers(network).values():
        if quantizer.alpha.dim():
            quantizer.alpha[target] = quantizer.alpha[source]
