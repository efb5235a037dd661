"""The files in which AVA is published, and where: archives of annotations, lists of videos, the videos."""

import csv
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from core.download.many import Downloader, Remote
from core.formats.ava import ANNOTATION_SUFFIX
from core.runtime.errors import UserError
from core.runtime.files import atomic_write


@dataclass(frozen=True)
class Sources:
    """The addresses of a release's files; `AVA` below is the release that is downloaded."""

    annotations: Mapping[str, Remote]  # split -> archive of csvs
    utility: Mapping[str, Remote]  # split, or "test" -> csv
    video_names: Remote  # one file name a line
    video_md5s: Remote  # csv with the header file_name,md5
    video_folder: str  # address of the videos, without the file name


AVA = Sources(
    annotations={
        "train": Remote(
            "https://research.google.com/ava/download/ava_activespeaker_train_v1.0.tar.bz2",
            "0e6ebaacfb3a554199e319e0c26a1ec0",
        ),
        "val": Remote(
            "https://research.google.com/ava/download/ava_activespeaker_val_v1.0.tar.bz2",
            "c00210f1d62caaf32759afb92b4562cc",
        ),
    },
    utility={
        split: Remote(
            "https://filedn.com/l0kNCNuXuEq70c3iUHsXxJ7/active-speakers-context/"
            f"ava_activespeaker_{split}_augmented.csv"
        )
        for split in ("train", "val", "test")
    },
    video_names=Remote("https://s3.amazonaws.com/ava-dataset/annotations/ava_speech_file_names_v1.txt"),
    # AVA itself gives no checksums of the videos; this list is another project's, and pinned by its own checksum.
    video_md5s=Remote(
        "https://raw.githubusercontent.com/tuanchien/asd/master/ava_speech_file_names_v1.csv",
        "aa990d3a628b7cb0c181572e600d79c0",
    ),
    video_folder="https://s3.amazonaws.com/ava-dataset/trainval",
)


def at_mirror(sources: Sources, mirror: str) -> Sources:
    """The same table with `mirror` instead of each address' scheme and host.

    Raises:
        UserError: `mirror` is no address of a web server.
    """
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise UserError(f"--mirror {mirror}: give an address such as http://host:8000/folder")

    def moved(url: str) -> str:
        return mirror.rstrip("/") + urlsplit(url).path

    def all_moved(remotes: Mapping[str, Remote]) -> dict[str, Remote]:
        return {key: Remote(moved(url), md5) for key, (url, md5) in remotes.items()}

    return Sources(
        annotations=all_moved(sources.annotations),
        utility=all_moved(sources.utility),
        video_names=Remote(moved(sources.video_names.url), sources.video_names.md5),
        video_md5s=Remote(moved(sources.video_md5s.url), sources.video_md5s.md5),
        video_folder=moved(sources.video_folder),
    )


def name_of(remote: Remote) -> str:
    """The file name in an address."""
    return PurePosixPath(urlsplit(remote.url).path).name


def unpack_annotations(archive: Path, folder: Path) -> int:
    """Write each csv of an archive to `folder`, unless it is there; their number.

    Raises:
        UserError: as `read_archive`, or a csv is there with another content.
    """
    count = 0
    for name, content in tqdm(read_archive(archive), desc=f"unpack {archive.name}", unit="file", disable=None):
        path = folder / name
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        elif path.read_bytes() != content:
            raise UserError(f"{path} is not what {archive} holds: move it away, or give another folder")
        count += 1
    return count


def read_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Each annotation csv of a tar archive, in whichever of its folders: file name and content.

    Nothing is extracted by tarfile, and of a member's path only the last part is used, so that no archive can write
    outside the folder that it is given.

    Raises:
        UserError: the archive cannot be read, has no csvs or the same one twice, or has a link, a device, an absolute
            path or a path with `..`, as no archive of AVA has.
    """
    seen = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                    raise UserError(
                        f"{archive} holds {member.name!r}, a path out of it or no plain file, as no archive "
                        "of AVA does: delete it and fetch it again"
                    )
                # A leading dot: the resource forks that macOS adds to archives.
                if member.isfile() and path.name.endswith(ANNOTATION_SUFFIX) and not path.name.startswith("."):
                    if path.name in seen:
                        raise UserError(f"{archive} holds {path.name} twice: delete it and fetch it again")
                    seen.add(path.name)
                    yield path.name, tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} cannot be read ({error}): delete it and fetch it again") from error
    if not seen:
        raise UserError(f"{archive} holds no <video_id>{ANNOTATION_SUFFIX}: delete it and fetch it again")


def fetch_annotations(downloader: Downloader, folders: Mapping[str, Path], sources: Sources) -> dict[str, int]:
    """Download the archive of each split and write its csvs to the split's folder; split -> number of csvs."""
    archives = {split: Path(name_of(sources.annotations[split])) for split in folders}
    there = downloader.fetch({archives[split]: sources.annotations[split] for split in folders}, "annotations")
    return {
        split: unpack_annotations(downloader.folder / archive, folders[split])
        for split, archive in archives.items()
        if archive in there
    }


def find_videos(
    lists: Downloader, video_ids: Mapping[str, Path], sources: Sources, *, use_md5: bool
) -> dict[Path, Remote]:
    """The files of some videos on the server, by the release's list of names; what is missing is noted in `lists`.

    Args:
        lists: downloads the lists of names and checksums.
        video_ids: id -> the folder that its file is meant for.
        sources: where everything is.
        use_md5: take the list of checksums too, and no video without it.

    Returns:
        folder / file name -> the file; empty where a list could not be downloaded.

    Raises:
        UserError: a list is not of its form.
    """
    remotes = [sources.video_names, *([sources.video_md5s] if use_md5 else [])]
    there = lists.fetch({Path(name_of(remote)): remote for remote in remotes}, "lists of videos")
    if len(there) < len(remotes):
        only_md5s = Path(name_of(sources.video_names)) in there
        advice = " (--no-md5: do without the checksums)" if only_md5s else ""
        lists.missing.append(f"all videos: without the lists none is downloaded{advice}")
        return {}
    names = {PurePosixPath(name).stem: name for name in read_video_names(lists.folder / name_of(sources.video_names))}
    md5s = read_md5s(lists.folder / name_of(sources.video_md5s)) if use_md5 else {}
    lists.missing += [
        f"{folder / video_id}: annotated, but not listed in {sources.video_names.url}"
        for video_id, folder in sorted(video_ids.items())
        if video_id not in names
    ]
    return {
        folder / names[video_id]: Remote(f"{sources.video_folder}/{quote(names[video_id])}", md5s.get(names[video_id]))
        for video_id, folder in video_ids.items()
        if video_id in names
    }


def read_video_names(path: Path) -> list[str]:
    """The file names of a list, one a line.

    Raises:
        UserError: there is none, or one that is not a plain file name with a suffix.
    """
    names = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if not re.fullmatch(r"[\w-]+\.\w+", name, flags=re.ASCII):
            raise UserError(
                f"{path} holds {name[:80]!r}, expected file names, one a line: delete it and fetch it again"
            )
    if not names:
        raise UserError(f"{path} holds no file names: delete it and fetch it again")
    return names


def read_md5s(path: Path) -> dict[str, str]:
    """The csv of checksums: file name -> MD5.

    Raises:
        UserError: it has other columns, or something that is not an MD5.
    """
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        md5s = {row.get("file_name"): row.get("md5") for row in csv.DictReader(file)}
    for name, md5 in (md5s or {None: None}).items():
        if not name or not re.fullmatch("[0-9a-fA-F]{32}", md5 or ""):
            raise UserError(f"{path} holds {name!r}, {md5!r}, expected file_name,md5: delete it and fetch it again")
    return md5s
