"""`splitmerge models`: the networks there are."""

import argparse

HELP = "List the networks that can be trained and exported, with their parameter counts."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=int, default=19, help="number of classes")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage; 64 in the papers")


def run(arguments: argparse.Namespace) -> int:
    from training.models import create_model, list_models

    print(f"{'model':<12} {'parameters':>12}")
    for name in list_models():
        model = create_model(name, arguments.classes, arguments.width)
        print(f"{name:<12} {sum(p.numel() for p in model.parameters()):>12,}")
    return 0
