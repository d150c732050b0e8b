r"""The methods that are built in. All of them explain the class's probability.

Importing this package registers them, in this order.
"""

from captum_attngrad.evaluation.methods import attention, gradients, perturbations
from captum_attngrad.evaluation.registry import register_method

for _method in (*attention.METHODS, *gradients.METHODS, *perturbations.METHODS):
    register_method(_method)
