import torch
def gradient_like(logits): return torch.empty_like(logits)
