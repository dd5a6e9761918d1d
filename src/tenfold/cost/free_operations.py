"""The operators that make no multiply-adds, by the convention of `tenfold.cost.operations`.

Known by what PyTorch itself says of its operators (a view; tagged "pointwise"; tagged "reduction"), or by name.
"""

from __future__ import annotations

import functools

import torch

_FREE_TAGS = {torch.Tag.pointwise, torch.Tag.reduction}
# Only these keep PyTorch's promise of what the tags mean; a custom operator may be tagged as anything.
_TRUSTED_NAMESPACES = {"aten", "prims"}
_FREE_NAMESPACES = {"prim"}  # questions about a tensor: its device, its sizes
_FREE_PREFIXES = ("tenfold::quantize_", "tenfold::interpolate_", "tenfold::round_", "tenfold::standard_")

_NAMES = """
_local_scalar_dense _to_copy _unsafe_view alias_copy as_strided_ as_strided_scatter block_diag bucketize cat clone
complex constant_pad_nd copy detach detach_ diag_embed diagonal_scatter equal fill flip is_same_size lift
lift_fresh_copy pad polar reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
replication_pad1d replication_pad2d replication_pad3d resize roll rot90 select_scatter set slice_scatter
split_with_sizes_copy squeeze_ stack t_ transpose_ unsafe_split unsafe_split_with_sizes unsqueeze_ unfold_copy
view_copy zero

arange empty empty_like empty_permuted empty_strided eye full full_like linspace logspace new_empty new_empty_strided
new_full new_ones new_zeros ones ones_like scalar_tensor tril_indices triu_indices zeros zeros_like _efficientzerotensor

bernoulli exponential multinomial native_dropout normal poisson rand rand_like randint randint_like randn randn_like
random randperm rrelu_with_noise uniform

_unsafe_index _unsafe_index_put _unsafe_masked_index embedding gather index index_add index_copy index_fill index_put
index_select masked_scatter masked_select nonzero nonzero_static put scatter scatter_add scatter_reduce take tril triu
_unique2 unique_consecutive unique_dim bincount isin searchsorted sort topk kthvalue median mode cummax cummin

cumprod cumsum logcumsumexp diff trace floor_divide renorm weight_norm _weight_norm_interface
_log_softmax _safe_softmax _softmax _masked_softmax _prelu_kernel glu log_sigmoid_forward hardswish

_batch_norm_no_update _batch_norm_with_update _native_batch_norm_legit _native_batch_norm_legit_no_training
cudnn_batch_norm native_batch_norm native_group_norm native_layer_norm _fused_rms_norm

_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d
avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices max_pool3d_with_indices
mkldnn_adaptive_avg_pool2d mkldnn_max_pool2d mkldnn_max_pool3d max_unpool2d max_unpool3d

channel_shuffle native_channel_shuffle col2im im2col pixel_shuffle pixel_unshuffle
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_nearest1d upsample_nearest2d
upsample_nearest3d

_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar _pin_memory
is_pinned item sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride
_mkldnn_reshape _mkldnn_transpose _nnz to_mkldnn _to_dense mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight
"""
_FREE_NAMES = {f"aten::{name}" for name in _NAMES.split()} | {
    "torchvision::nms",
    "torchvision::roi_pool",  # takes maxima
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit",
}


@functools.cache
def is_free(operator: torch._ops.OpOverload) -> bool:
    """Whether an operator is known to make no multiply-adds."""
    name = operator._schema.name
    functional = name.removesuffix("_")  # an operator in place costs what its functional form costs
    if name in _FREE_NAMES or functional in _FREE_NAMES:
        return True
    namespace, _, short_name = functional.partition("::")
    if namespace in _FREE_NAMESPACES or name.startswith(_FREE_PREFIXES):
        return True
    if namespace not in _TRUSTED_NAMESPACES:
        return False
    # Some overloads and in-place forms lack the tag that their siblings carry.
    packets = [operator.overloadpacket]
    if functional != name and hasattr(getattr(torch.ops, namespace), short_name):
        packets.append(getattr(getattr(torch.ops, namespace), short_name))
    overloads = (getattr(packet, overload) for packet in packets for overload in packet.overloads())
    return operator.is_view or any(_FREE_TAGS.intersection(overload.tags) for overload in overloads)
