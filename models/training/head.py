"""The head and its loss in one: logits are made, compared and differentiated a few rows at a time.

Owns: cross-entropy against labels, or against a teacher's whole distribution at every position (the paper's
distillation; no label is seen). Does not know: what made the hidden states.
The idea: the fp32 logits of a whole batch are its largest array by far. A block of 128 rows stays in cache and is gone before
the next, and since the gradients are known at once, the forward pass leaves them ready.
"""
import torch
import torch.nn.functional as F

ROWS = 128       # a block of logits in a CPU's cache: 1.5 MB at 3072 pieces
GPU_ROWS = 8192  # a GPU has memory enough, and wants work
GROUP = 2048     # rows that share the products of the backward: adding to the weight's gradient costs as much as they do


class HeadLoss(torch.autograd.Function):
    """Mean over positions of -sum_v q[v] log softmax(hidden @ weight.T)[v], q the label's one-hot or the teacher's softmax.

    hidden [b,l,d], weight [v,d]; labels [b,l], or None with the teacher's hidden states [b,l,d'] and head [v,d'].
    Operands and logits are bf16, sums and softmax fp32.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, teacher_hidden=None, teacher_weight=None):
        flat, low = hidden.reshape(-1, hidden.shape[-1]).bfloat16(), weight.bfloat16()
        if labels is None:
            flat_teacher = teacher_hidden.reshape(-1, teacher_hidden.shape[-1]).bfloat16()
            low_teacher = teacher_weight.bfloat16()
        else:
            labels = labels.reshape(-1, 1)
        block = GPU_ROWS if flat.is_cuda else ROWS
        group = max(GROUP, block)
        grad_hidden, grad_weight = torch.empty(flat.shape, device=flat.device), torch.zeros_like(weight)
        loss = torch.zeros((), device=flat.device)
        for first in range(0, len(flat), group):
            part = flat[first:first + group]
            grad = part.new_empty(len(part), len(low))
            for start in range(0, len(part), block):
                rows = slice(first + start, min(first + start + block, first + group))
                logits = F.linear(flat[rows], low).float()
                logits -= logits.amax(1, keepdim=True)
                if labels is None:
                    wanted = F.softmax(F.linear(flat_teacher[rows], low_teacher).float(), -1)
                    loss -= torch.dot(wanted.flatten(), logits.flatten())
                else:
                    loss -= logits.gather(1, labels[rows]).sum()
                total = logits.exp_().sum(1, keepdim=True)
                loss += total.log().sum()
                logits /= total
                if labels is None:
                    logits -= wanted
                else:
                    logits.scatter_add_(1, labels[rows], torch.full_like(total, -1.0))
                grad[start:start + block] = logits
            grad_hidden[first:first + group] = grad @ low
            grad_weight += grad.t() @ part
        ctx.save_for_backward(grad_hidden.view(hidden.shape), grad_weight)
        ctx.count = len(flat)
        return loss / len(flat)

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad / ctx.count
        return grad_hidden * scale, grad_weight * scale, None, None, None
