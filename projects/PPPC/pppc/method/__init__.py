"""The paper: Gaussians, prototypes, contrast, crop, mixing and teacher, without a configuration.

From an image to the score of its pixels with each class:

    >>> import torch
    >>> from pppc.method.gaussian import mutual_likelihood_score
    >>> from pppc.method.prototypes import GaussianPrototypes
    >>> from pppc.modeling.probabilistic_head import ProbabilisticHead
    >>> _ = torch.manual_seed(0)
    >>> label = torch.tensor([[[0, 0, 1, 1]]])  # an image of four pixels and two classes
    >>> features = torch.randn(1, 8, 1, 4) + 3 * label[:, None]  # what an encoder makes of it
    >>> head = ProbabilisticHead(in_channels=8, dim=16)
    >>> mean, log_var = head(features)  # each pixel is a Gaussian: both (1, 16, 1, 4)
    >>> prototypes = GaussianPrototypes(num_classes=2, dim=16)
    >>> prototypes.update(mean, log_var, label)  # and so is each class: (2, 16)
    >>> pixels = [values[0, :, 0].T for values in (mean, log_var)]  # both (4, 16)
    >>> scores = mutual_likelihood_score(*pixels, prototypes.mean, prototypes.log_var)
    >>> scores.argmax(dim=1)  # of (4, 2): the likeliest class of each pixel
    tensor([0, 0, 1, 1])
"""
