"""bfloat16 convolutions whose weight gradient is quick on a CPU, where maps are small.

oneDNN takes longer for that gradient, of many channels on small maps, than for all the rest of the
layer; a matmul for each place of the kernel gives the same sums. Milliseconds of each:

    OMP_NUM_THREADS=1 python experiments/cifar100/small_maps.py
"""

import time

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional

# Of small-resnet at 32 pixels: channels before and after, kernel, stride, side of the map before.
LAYERS = (
    *((32, 32, 3, 1, 16), (32, 64, 3, 2, 16), (32, 64, 1, 2, 16), (64, 64, 3, 1, 8)),
    *((64, 128, 3, 2, 8), (64, 128, 1, 2, 8), (128, 128, 3, 1, 4)),
    *((128, 256, 3, 2, 4), (128, 256, 1, 2, 4), (256, 256, 3, 1, 2)),
)
_LARGEST_SIDE = 4  # of the map after the layer; above it oneDNN is quicker


class QuickGradients(pl.Callback):
    """Train a network with them; its weights stay where they are."""

    def on_fit_start(self, trainer, module):
        with_quick_gradients(module)


def with_quick_gradients(network):
    """``network`` itself, for a CPU and an autocast to bfloat16."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = _Conv2d
    return network


def _is_plain(convolution):
    return (convolution.groups, convolution.dilation, convolution.bias) == (1, (1, 1), None)


class _Conv2d(nn.Conv2d):
    def _conv_forward(self, images, weight, bias):
        small = images.shape[-1] // self.stride[0] <= _LARGEST_SIDE
        if not (torch.is_autocast_enabled("cpu") and small and torch.is_grad_enabled()):
            return super()._conv_forward(images, weight, bias)
        images, weight = (x.to(torch.bfloat16) for x in (images, weight))
        channels_last = images.contiguous(memory_format=torch.channels_last)
        return _Convolution.apply(channels_last, weight, self.stride, self.padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context, images, weight, stride, padding):
        context.save_for_backward(images, weight)
        context.stride, context.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(context, gradient):
        images, weight = context.saved_tensors
        stride, padding = context.stride, context.padding
        of_images, _, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), 1,
            (context.needs_input_grad[0], False, False),
        )  # fmt: skip
        of_weight = weight_gradient(images, gradient, weight.shape, stride, padding)
        return of_images, of_weight.to(weight.dtype), None, None


def weight_gradient(images, gradient, shape, stride, padding):
    """The gradient at a weight of ``shape``, of ``images`` and the ``gradient`` at the output."""
    pixels = images.permute(0, 2, 3, 1)
    pixels = functional.pad(pixels, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    height, width = gradient.shape[2:]
    of_outputs = gradient.permute(0, 2, 3, 1).reshape(-1, shape[0]).t()
    total = images.new_empty(*shape[2:], *shape[:2], dtype=torch.float32)
    for i in range(shape[2]):
        for j in range(shape[3]):
            rows = slice(i, i + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (width - 1) + 1, stride[1])
            total[i, j] = of_outputs @ pixels[:, rows, columns].reshape(-1, shape[1])
    return total.permute(2, 3, 0, 1)


def main():
    print("| channels | kernel | stride | side | forward | gradient, oneDNN | matmuls |")
    print("|:---|---:|---:|---:|---:|---:|---:|")
    for layer in LAYERS:
        shown = " | ".join(f"{milliseconds(work):.1f}" for work in works(*layer))
        print("| {} -> {} | {} | {} | {} |".format(*layer), shown, "|")


def works(before, after, kernel, stride, side):
    """Of a layer and a batch of 1,024: forward, and the weight gradient in both ways."""
    strides, padding = (stride, stride), (kernel // 2, kernel // 2)
    images = torch.randn(1024, before, side, side, dtype=torch.bfloat16)
    images = images.to(memory_format=torch.channels_last)
    weight = torch.randn(after, before, kernel, kernel, dtype=torch.bfloat16)
    given = (None, strides, padding)
    gradient = torch.randn_like(functional.conv2d(images, weight, *given))
    rest = ((1, 1), False, (0, 0), 1, (False, True, False))
    backward = torch.ops.aten.convolution_backward
    return (
        lambda: functional.conv2d(images, weight, *given),
        lambda: backward(gradient, images, weight, *given, *rest),
        lambda: weight_gradient(images, gradient, weight.shape, strides, padding),
    )


def milliseconds(work, times=20):
    work()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return 1000 * (time.perf_counter() - start) / times


if __name__ == "__main__":
    main()
