"""A library in the place of NVIDIA's NVML that plays states from a file: ``shim.c``, compiled with the genuine header of ``nvidia-nvml-dev``."""

import importlib.util
import subprocess
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
STATES_VARIABLE = "FALLOW_NVML_STATES"


def compiled(folder: Path) -> Path:
    """The library in a folder, made with the machine's C compiler. Put the folder into LD_LIBRARY_PATH."""
    spec = importlib.util.find_spec("nvidia")
    places = (spec.submodule_search_locations if spec is not None else None) or []
    headers = [header for place in places for header in Path(place).glob("*/include/nvml.h")]
    assert headers, "nvidia-nvml-dev, which has nvml.h, is installed with the development tools"
    library = folder / LIBRARY
    source = Path(__file__).with_name("shim.c")
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["cc", *options, "-I", headers[0].parent, "-o", library, source], check=True)
    return library
