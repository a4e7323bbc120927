from concurrent.futures import ThreadPoolExecutor
import torch
_pool = ThreadPoolExecutor(4)
def in_ranges(kernel, count, *args, grain=1):
    parts = max(1, min(torch.get_num_threads(), -(-count // grain)))
    cuts = [count * k // parts for k in range(parts + 1)]
    jobs = [_pool.submit(kernel, *args, a, b) for a, b in zip(cuts[1:], cuts[2:])]
    kernel(*args, cuts[0], cuts[1])
    for job in jobs:
        job.result()
