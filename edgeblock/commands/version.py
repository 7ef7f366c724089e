"""`edgeblock version`: the version, and nothing else."""

import argparse

import edgeblock

EXAMPLES = "  edgeblock version"


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    return


def main(_chosen: argparse.Namespace) -> int:
    print(f"edgeblock {edgeblock.__version__}")
    return 0
