"""The listwise loss of the ranker and its gradient."""

import math

from service.model.kernels.compiled import kernel


@kernel
def cross_entropy(z, offsets, target, weight, slope):
    """The sum over histories and tasks of weight * -log softmax(z)[target], the softmax over the candidates of the
    history. Returns that of the first task, and writes the gradient of all by z into `slope` [P, T].

    z [P, T]; offsets [B + 1]; target [B] a pair; weight [B, T]."""
    loss = 0.0
    for b in range(len(target)):
        begin, end = offsets[b], offsets[b + 1]
        for t in range(z.shape[1]):
            w = float(weight[b, t])
            if w == 0.0:
                for p in range(begin, end):
                    slope[p, t] = 0.0
                continue
            highest = z[begin, t]
            for p in range(begin, end):
                highest = max(highest, z[p, t])
            total = 0.0
            for p in range(begin, end):
                total += math.exp(z[p, t] - highest)
            for p in range(begin, end):
                slope[p, t] = w * math.exp(z[p, t] - highest) / total
            slope[target[b], t] -= w
            if t == 0:
                loss -= w * (z[target[b], t] - highest - math.log(total))
    return loss
