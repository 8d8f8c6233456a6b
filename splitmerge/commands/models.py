"""`splitmerge models`: the networks there are."""

import argparse

HELP = "List the networks that can be trained and exported, with their parameter counts and options."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=int, default=19, help="number of classes")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage; 64 in the papers")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from training.models import create_model, list_models, network_named

    print(f"{'model':<20} {'parameters':>12}  options, as in NAME,option=value")
    for name in list_models():
        with torch.device("meta"):  # shapes alone: no weights are drawn
            model = create_model(name, arguments.classes, arguments.width)
        options = ", ".join(network_named(name).options)
        print(f"{name:<20} {sum(p.numel() for p in model.parameters()):>12,}  {options}".rstrip())
    return 0
