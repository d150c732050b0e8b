r"""``captum-attngrad demo``: ``compare`` on real reviews and a model trained here."""

import argparse
from typing import Any

from captum_attngrad.cli.arguments import add_command
from captum_attngrad.cli.compare import Preset, add_options

_DESCRIPTION = """\
Compares attention gradient with other methods on held-out movie-review sentences, and
writes DIR/index.html and DIR/comparison.npz. It is the compare command with defaults
for every option but --output.

The first run downloads the sentences (2.5 MB) and trains a small attention LSTM
(about a minute); both are kept in the cache folder and used again. The rest takes a
few minutes for 100 sentences, on one processor. The same command, started again after
it was stopped, continues where it was.
"""
METHODS = (
    "attention_gradient",
    "attention_x_gradient",
    "attention_gradient_centered",
    "attention_x_gradient_centered",
    "integrated_attention_gradient",
    "joint_integrated_gradients",
    "attention_deep_lift",
    "attention_deep_lift_joint",
    "attention_weights",
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "lime",
    "occlusion",
    "random",
)
# Of each property the metrics that say different things.
METRICS = (
    "comprehensiveness",
    "sufficiency",
    "inhibitor_words",
    "polarity_violation",
    "leave_one_out_agreement",
    "infidelity",
    "invariance_spearman",
    "neighbors_spearman",
    "cohesion",
    "silhouette_gain",
    "token_attack_auroc",
    "attack_localization",
    "parameter_randomization",
    "forward_passes",
    "backward_passes",
)
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad demo --output quick/ --limit 12
  captum-attngrad demo --output other/ --seed 1 --no-progress
  captum-attngrad demo --output shap/ --limit 20 --methods lime,kernel_shap,random \\
      --metrics faithfulness,consistency

The environment variable CAPTUM_ATTNGRAD_CACHE names the folder that keeps the
sentences and the model (default: captum_attngrad in the platform's cache folder).
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``demo`` command."""
    parser = add_command(
        commands,
        "demo",
        "explain real movie reviews and write a report",
        _DESCRIPTION,
        _EPILOG,
    )
    preset = Preset(
        title="Explanations of movie reviews compared",
        model="lstm",
        data="movie-reviews",
        methods=",".join(METHODS),
        metrics=",".join(METRICS),
    )
    add_options(parser, preset)
