"""Write networks as files that run without PyTorch: ONNX, or OpenVINO's format.

    python scripts/export.py light_asd --out exported                         # published weights, as detect.py's
    python scripts/export.py lr_asd --weights talkset --format openvino --out exported
    python scripts/export.py resnet18_two_streams --weights runs/mine/ste/100.pth --out exported
    python scripts/export.py context --weights light_asd --out exported       # shipped, for Light-ASD's AVA weights
    python scripts/export.py context --weights runs/mine/asc/15.pth --context-shape 11,4,3 --out exported

A whole-track encoder becomes one file for whole tracks, and four (audio, visual, forward, backward) for tracks whose
faces are scored as they come. What each file reads, and how that is prepared, stands in its metadata. A file is only
written when the runtimes compute what PyTorch does, within 1e-4. More: docs/export.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.dataset import SHAPE
from core.detection.encoders import shipped_for
from core.detection.options import CROPS, ENCODERS, WHOLE_TRACK_ENCODERS, context_shape
from core.download.weights_catalogue import SHIPPED_CONTEXTS, WEIGHTS, find_weights
from core.export import networks
from core.export.networks import Network
from core.models import TRACK_ENCODERS, ASC_Net, ResidualContext, make_encoder
from core.models.residual_context import is_residual
from core.models.weights import clip_length_of, fill, load_weights, read_state_dict
from core.runtime.checks import as_path
from core.runtime.errors import EXIT_BROKEN_ITEMS, UserError, exits_cleanly
from core.runtime.files import fingerprint, read_json
from core.training.runs import check_trained_with

CONTEXT = "context"
UNKNOWN_LICENCE = "not known: these weights are of the user's own"


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    from core.export.files import DisagreementError, export  # here: without the extra it is a mistake of the user's

    if arguments.int8 and arguments.network not in WHOLE_TRACK_ENCODERS:
        raise UserError(f"--int8 is for {' and '.join(WHOLE_TRACK_ENCODERS)}: leave it out for {arguments.network}")
    if arguments.crop and arguments.network not in WHOLE_TRACK_ENCODERS:
        raise UserError(f"--crop is for {' and '.join(WHOLE_TRACK_ENCODERS)}: leave it out for {arguments.network}")
    status = 0
    for network in chosen(arguments):
        int8 = arguments.int8 and any(array.name == "faces" for array in network.inputs)
        try:
            path, differences = export(network, arguments.out, arguments.format, int8=int8)
        except DisagreementError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            status = EXIT_BROKEN_ITEMS
            continue
        within = ", ".join(f"{worst:.1e} in {runtime}" for runtime, worst in differences.items())
        print(f"{path}: {'mean' if int8 else 'greatest'} difference from PyTorch {within}", flush=True)
    return status


def chosen(arguments: argparse.Namespace) -> list[Network]:
    """What the command line asks for.

    Raises:
        UserError: the weights are absent, or of another network.
    """
    name = arguments.network
    if name in TRACK_ENCODERS:
        path, protocol = find_weights(name, arguments.weights, arguments.cache)
        model = TRACK_ENCODERS[name]()
        load_weights(model, path, f"{name} weights")
        licences = {one.file.sha256: one.file.licence for one in WEIGHTS[name].values()}
        about = about_weights(path, licences.get(fingerprint(path), UNKNOWN_LICENCE))
        return networks.track_encoder(name, model.eval(), arguments.crop or protocol or "box", about)
    if name == CONTEXT:
        return context(arguments.weights or WHOLE_TRACK_ENCODERS[0], context_shape(arguments.context_shape))
    if arguments.weights is None:
        raise UserError(f"{name} has no published weights here: give --weights FILE, a state dict (.pth)")
    weights = read_state_dict(arguments.weights, "STE checkpoint")
    model = make_encoder(name, False, clip_length_of(weights))
    fill(model, weights, arguments.weights, "STE checkpoint")
    return networks.two_streams(name, model.eval(), about_weights(Path(arguments.weights), UNKNOWN_LICENCE))


def context(given: str, shape: tuple[int, int, int]) -> list[Network]:
    """A context network: the shipped one for an encoder's name, or that of a file.

    Raises:
        UserError: there is no such file, or it is of another network or shape.
    """
    path = SHIPPED_CONTEXTS / f"{given}.pth" if given in WEIGHTS else Path(given)
    weights = read_state_dict(path, "ASC checkpoint")
    made = {}
    if path.resolve().parent == SHIPPED_CONTEXTS.resolve():
        made = read_json(path.with_suffix(".json"), f"restore {SHIPPED_CONTEXTS}")
        shipped_for(path.stem, made.get("encoder_sha256", ""))  # which sees that the record is of this file
    about = about_weights(path, made.get("licence", UNKNOWN_LICENCE))
    about |= {key: made[key] for key in ("encoder", "encoder_sha256") if key in made}
    if is_residual(weights):
        model = ResidualContext()
        fill(model, weights, path, "ASC checkpoint")
        return networks.residual_context(model.eval(), about)
    check_trained_with(path, "ASC", dict(zip(SHAPE, shape, strict=True)))
    first = weights.get("sat.theta.weight")
    model = ASC_Net(shape[0], shape[2], feature_size=1024 if first is None or first.ndim < 2 else first.shape[1])
    fill(model, weights, path, "ASC checkpoint")
    return networks.published_context(model.eval(), shape, about)


def about_weights(path: Path, licence: str) -> dict[str, str]:
    """What files tell of the weights in them."""
    return {"weights": path.name, "weights_sha256": fingerprint(path), "weights_licence": licence}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=[*ENCODERS, CONTEXT])
    parser.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help="a state dict, such as an epoch of STE_train.py or ASC_train.py; or the name of published ones: ava "
        "(default) or talkset for whole-track encoders, light_asd (default) or lr_asd for the context network",
    )
    parser.add_argument("--format", choices=networks.FORMATS, default=networks.FORMATS[0])
    parser.add_argument(
        "--int8",
        action="store_true",
        help="embed faces with 8 bit integers (whole-track encoders): those files are named *_int8",
    )
    parser.add_argument("--out", type=as_path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--crop", choices=CROPS, help="how faces were cut for own weights of a whole-track encoder")
    parser.add_argument(
        "--context-shape", default="11,4,3", metavar="L,STRIDE,S", help="of an ASC_Net's contexts (default 11,4,3)"
    )
    parser.add_argument("--cache", type=as_path, help="folder for downloaded weights; by default the user's own")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
