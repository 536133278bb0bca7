"""The demo's image: the Python that runs us, its standard library and the shared libraries that both need.

Nothing is pulled and no program builds it: the files are gathered here, written as one layer of a docker-archive and
loaded through the engine's API (``POST /images/load``; Docker and Podman). Python lies below ``/usr/local`` whatever its
place on the host, so its home and the libraries' folder stand in the image's environment. The image's tag is a digest of
what goes in, so a second call finds it loaded and does nothing.
"""

import asyncio
import hashlib
import io
import json
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import aiohttp

REPOSITORY: Final = "fallow-demo"
CONNECT_SECONDS: Final = 2.0
LOAD_SECONDS: Final = 120.0
USER: Final = 65_534
_HOME: Final = PurePosixPath("usr/local")
_LEFT_OUT: Final = {
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "ensurepip", "tkinter", "turtledemo",
    "lib2to3", "pydoc_data", "distutils",
}  # fmt: skip
_OK: Final = 200
_NOT_FOUND: Final = 404
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class ImageError(Exception):
    """The image could not be made or loaded."""


async def engine_fault(socket: str) -> str | None:
    """Why no container engine can be used at a socket; None if one answers there."""
    if "://" in socket:
        return "only an engine on a Unix socket can be used"
    try:
        if not Path(socket).is_socket():
            return "there is no such socket"
        async with _session(socket, CONNECT_SECONDS) as session, session.get("http://engine/_ping") as answer:
            return None if answer.status == _OK else f"it answers {answer.status}"
    except TimeoutError:
        return f"it does not answer within {CONNECT_SECONDS:.0f} s"
    except (aiohttp.ClientError, OSError) as error:
        return str(error)


async def load_demo_image(socket: str) -> str:
    """Make the image and load it into the engine, unless it is there already; its reference. Raises ImageError."""
    files = dict(sorted(_files().items()))
    reference = f"{REPOSITORY}:{_digest(files)}"
    try:
        async with _session(socket, LOAD_SECONDS) as session:
            if not await _is_loaded(session, reference):
                await _load(session, await asyncio.to_thread(_archive, files, reference))
    except TimeoutError as error:
        raise ImageError(f"the engine at {socket} did not take the image within {LOAD_SECONDS:.0f} s") from error
    except aiohttp.ClientError as error:
        raise ImageError(f"the engine at {socket} went away while the image was loaded: {error}") from error
    return reference


async def _is_loaded(session: aiohttp.ClientSession, reference: str) -> bool:
    """Whether the engine has the image."""
    async with session.get(f"http://engine/images/{reference}/json") as answer:
        if answer.status not in {_OK, _NOT_FOUND}:
            raise ImageError(f"the engine answered {answer.status}: {await answer.text()}")
        return answer.status == _OK


async def _load(session: aiohttp.ClientSession, archive: io.BytesIO) -> None:
    """Give the engine the image."""
    headers = {"content-type": "application/x-tar"}
    async with session.post("http://engine/images/load", data=archive, headers=headers) as answer:
        text = await answer.text()
        if answer.status != _OK or '"error"' in text:
            raise ImageError(f"the engine did not load the image ({answer.status}): {text.strip()}")


def _session(socket: str, seconds: float) -> aiohttp.ClientSession:
    """A session on the engine's socket."""
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), timeout=aiohttp.ClientTimeout(total=seconds))


def _files() -> dict[PurePosixPath, Path]:
    """Where in the image each file of the host goes."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    files = {_HOME / "bin" / "python3": interpreter}
    extensions = [interpreter]
    for file in _library_files(library):
        files[_HOME / "lib" / library.name / file.relative_to(library).as_posix()] = file
        if file.suffix == ".so":
            extensions.append(file)
    for library_file, is_loader in _shared_libraries(extensions):
        # The interpreter names its loader by an absolute path; everything else is found in one folder.
        place = PurePosixPath(str(library_file).lstrip("/")) if is_loader else _HOME / "lib" / library_file.name
        files[place] = library_file
    return files


def _library_files(library: Path) -> Iterator[Path]:
    """The files of the standard library but tests, packages and what needs a screen."""
    for entry in library.iterdir():
        if entry.name in _LEFT_OUT or entry.name.startswith("config-"):
            continue
        if entry.is_dir():
            yield from _library_files(entry)
        elif entry.suffix in {".py", ".so"}:
            yield entry


def _shared_libraries(programs: list[Path]) -> Iterator[tuple[Path, bool]]:
    """The shared libraries that programs need, as the host's loader finds them; True marks the loader itself."""
    listing = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    found: set[Path] = set()
    for line in listing.splitlines():
        words = line.split()
        path = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if not path.startswith("/") or path.endswith(":"):
            continue
        library = Path(path)
        if library not in found:
            found.add(library)
            yield library, "=>" not in words


def _digest(files: dict[PurePosixPath, Path]) -> str:
    """Names what goes into the image, without reading it all: places, sizes, times, and the form of this module."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for place, file in files.items():
        status = file.stat()
        digest.update(f"{place} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _archive(files: dict[PurePosixPath, Path], reference: str) -> io.BytesIO:
    """The image as `docker save` would write it, from its start."""
    layer = _layer(files)
    configuration = json.dumps(
        {
            "architecture": _MACHINES.get(sysconfig.get_platform().rpartition("-")[2], "amd64"),
            "os": "linux",
            "config": {
                "Env": [
                    f"PATH=/{_HOME}/bin:/usr/bin:/bin", f"PYTHONHOME=/{_HOME}", f"LD_LIBRARY_PATH=/{_HOME}/lib",
                    "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
                ],
                "Cmd": ["python3"],
                "User": f"{USER}:{USER}",
                "WorkingDir": "/tmp",  # noqa: S108 - of the image
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "fallow demo"}],
        }
    ).encode()  # fmt: skip
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in ((name, configuration), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, PurePosixPath(member), content, 0o644)
    buffer.seek(0)
    return buffer


def _layer(files: dict[PurePosixPath, Path]) -> bytes:
    """The file system: folders first, everything owned by root and readable by all, no times."""
    buffer = io.BytesIO()
    folders = {folder for place in files for folder in place.parents if folder.name}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted([*folders, PurePosixPath("etc")]):
            _add_folder(archive, folder, 0o755)
        _add_folder(archive, PurePosixPath("tmp"), 0o1777)
        for place, file in files.items():
            _add(archive, place, file.read_bytes(), 0o755)
        _add(archive, PurePosixPath("etc/passwd"), f"nobody:x:{USER}:{USER}::/tmp:/bin/false\n".encode(), 0o644)
    return buffer.getvalue()


def _add_folder(archive: tarfile.TarFile, place: PurePosixPath, mode: int) -> None:
    """Add a folder."""
    member = tarfile.TarInfo(str(place))
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def _add(archive: tarfile.TarFile, place: PurePosixPath, content: bytes, mode: int) -> None:
    """Add a file."""
    member = tarfile.TarInfo(str(place))
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
