"""Published weights that detection can use: where their owners keep them, their licences, how faces were cut for them.

Each address holds a commit, so that its content never changes, and each file is pinned by its SHA-256.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.download.cache import RemoteFile, cached
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, read_json

GITHUB = "https://raw.githubusercontent.com"
GITHUB_LFS = "https://media.githubusercontent.com/media"  # files that a repository keeps in Git LFS
LIGHT_ASD = "Junhua-Liao/Light-ASD/ed38c232de5efe0261dbd68627c0ade7cdfe14eb/weight"
LR_ASD = "Junhua-Liao/LR-ASD/1b6dcd2d8fc2895683de6508ec6294ec47d388ca/weight"
OPENCV_ZOO = "opencv/opencv_zoo/966be4cb6eefc2a4f586ed0581bf4bbaa2533070"
LIBFACEDETECTION = "ShiqiYu/libfacedetection.train/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx"

# Of the context networks that come with this repository, by scripts/train_context.py: <encoder>.pth for its published
# weights, and <encoder>.json: how it was made.
SHIPPED_CONTEXTS = Path(__file__).parents[1] / "models" / "contexts"

# By scripts/calibrate.py: of published weights the ranges for 8 bit integers, and how they were measured.
INT8_RANGES = Path(__file__).parents[1] / "models" / "int8.json"

YUNET = RemoteFile(
    what="the YuNet face detector",
    name="yunet_n_640_640.onnx",
    url=f"{GITHUB}/{LIBFACEDETECTION}/yunet_n_640_640.onnx",
    sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
    licence="Apache-2.0",
)
SFACE = RemoteFile(
    what="the SFace face embedding network",
    name="face_recognition_sface_2021dec.onnx",
    url=f"{GITHUB_LFS}/{OPENCV_ZOO}/models/face_recognition_sface/face_recognition_sface_2021dec.onnx",
    sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    licence="Apache-2.0",
)


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of an encoder.

    Attributes:
        file: where they are.
        crop: how faces were cut in their training, a name of `core.media.cropping.CROPS`.
    """

    file: RemoteFile
    crop: str


def _weights(path: str, sha256: str, crop: str) -> PublishedWeights:
    repository, file = path.split("/")[1], path.rsplit("/", 1)[1]
    name = f"{repository.lower()}_{file}"
    return PublishedWeights(RemoteFile(f"{repository}'s {file}", name, f"{GITHUB}/{path}", sha256, "MIT"), crop)


# Encoder -> name of the weights -> the weights; the first are the default.
WEIGHTS = {
    "light_asd": {
        "ava": _weights(
            f"{LIGHT_ASD}/pretrain_AVA_CVPR.model",
            "d44bc3ea7baa8e0946fa3921311714a630ed8b90a1928fab0dbe30d918909317",
            "box",
        ),
        "talkset": _weights(
            f"{LIGHT_ASD}/finetuning_TalkSet.model",
            "efc375833887eefa9d209dc92810e18519b04c3c73ea35a549f2a7f40b7d94d5",
            "lower_face",
        ),
    },
    "lr_asd": {
        "ava": _weights(
            f"{LR_ASD}/pretrain_AVA.model",
            "85e6c77fc981595234790d1e128ebb60352d37726b2445e0ef8891e2512fe9e3",
            "box",
        ),
        "talkset": _weights(
            f"{LR_ASD}/finetuning_TalkSet.model",
            "6b4ef53694e874e96cf630198dc479c78aebb3993bbf166aee3d926dfe7d9342",
            "lower_face",
        ),
    },
}


def find_weights(encoder: str, weights: str | Path | None, cache: str | Path | None = None) -> tuple[Path, str | None]:
    """The file of an encoder's weights, and how faces were cut in their training where that is known.

    Published weights are recognised by their content, also where they are given by their path.

    Args:
        encoder: a name of `WEIGHTS`.
        weights: a name of published weights, None for the encoder's first, or the path of a state dict.
        cache: folder for downloads; None for the user's.

    Raises:
        UserError: there is neither such a name nor such a file, or published weights could not be downloaded.
    """
    published = WEIGHTS[encoder]
    if weights is None or str(weights) in published:
        chosen = published[str(weights)] if weights is not None else next(iter(published.values()))
        return cached(chosen.file, cache), chosen.crop
    if not Path(weights).is_file():
        raise UserError(
            f"no {encoder} weights {weights}: give {' or '.join(published)} (published, downloaded once) or the path "
            "of a state dict"
        )
    crops = {one.file.sha256: one.crop for one in published.values()}
    return Path(weights), crops.get(fingerprint(weights))


def find_ranges(weights_sha256: str) -> Mapping[str, float]:
    """The ranges of an encoder's visual network for 8 bit integers, see `core.models.quantized.quantized`.

    Args:
        weights_sha256: of the file of the encoder's weights.

    Returns:
        Empty where there are none for these weights.
    """
    weights = read_json(INT8_RANGES, "restore it")["weights"].values()
    return next((one["ranges"] for one in weights if one["sha256"] == weights_sha256), {})
