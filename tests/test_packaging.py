"""What pip builds: the wheel's and the sdist's contents, and what happens without a compiler or nvcc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREE = "fastpose", "kernels", "csrc", "setup.py", "pyproject.toml", "CMakeLists.txt", "MANIFEST.in", "LICENSE"
SETTINGS = "FASTPOSE_CUDA", "FASTPOSE_CUDA_ARCHS", "CMAKE_ARGS", "CXX", "CC", "CUDACXX"

pytestmark = pytest.mark.slow
if not (ROOT / "setup.py").is_file():
    pytest.skip("needs the source tree", allow_module_level=True)
for tool in ("setuptools", "pybind11"):
    pytest.importorskip(tool, reason="builds without isolation")


def copy_tree(to: Path) -> Path:
    """The sources, without what an editable install has left among them."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "_C_missing.txt")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy(source, to / name)
    (to / "README.md").write_text("fastpose")
    return to


def pip_wheel(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`pip wheel` of a copy of the sources, into folder/dist."""
    (folder / "tree").mkdir()
    env = {name: value for name, value in os.environ.items() if name not in SETTINGS} | settings
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        "dist",
        "./tree",
    ]
    copy_tree(folder / "tree")
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def unpack(folder: Path) -> list[str]:
    """Unpacks the one wheel of folder/dist into folder/site and lists it."""
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
        return file.namelist()


def run_installed(folder: Path, code: str) -> str:
    """What `code` prints with the unpacked wheel, and without the finder of an editable install."""
    finders = "[f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]"
    code = f"import sys; sys.meta_path = {finders}; {code}"
    env = {**os.environ, "PYTHONPATH": str(folder / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of a machine whose nvcc is broken."""
    folder = tmp_path_factory.mktemp("wheel")
    done = pip_wheel(folder, CUDACXX=shutil.which("false") or "false")
    assert done.returncode == 0, done.stdout + done.stderr
    unpack(folder)
    return folder


def test_wheel_contents(built: Path) -> None:
    files = {
        path.relative_to(built / "site").as_posix() for path in (built / "site").rglob("*") if path.is_file()
    }
    expected = {"fastpose/py.typed", "fastpose/_C.pyi", "fastpose/__init__.py"}
    expected |= {f"fastpose/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    for ending in ("yaml", "js", "css", "html"):
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastpose").rglob(f"*.{ending}")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastpose").rglob("*.py")}
    assert expected <= files
    assert [name for name in files if name.startswith("fastpose/_C.") and name.endswith((".so", ".pyd"))]
    assert not [name for name in files if name.endswith("_C_missing.txt")]
    assert {name.split("/")[0].split("-")[0] for name in files} == {"fastpose"}


def test_wheel_holds_the_kernels_and_not_their_alias(built: Path) -> None:
    installed = built / "site" / "fastpose" / "kernels" / "__init__.py"
    assert installed.read_bytes() == (ROOT / "kernels" / "__init__.py").read_bytes()


def test_wheel_imports_and_is_fresh(built: Path) -> None:
    code = "import fastpose, fastpose.kernels as k; print(fastpose.backend_status()['cpp'][0], k.__file__)"
    available, file = run_installed(built, code).split()
    assert available == "True"
    assert Path(file).is_relative_to(built / "site")


def test_a_broken_nvcc_leaves_the_cpu_decoder(built: Path) -> None:
    code = "from fastpose import _ext; print(_ext.load()[0].has_cuda, _ext.missing('cuda'))"
    assert run_installed(built, code).startswith("False fastpose._C was built without CUDA")


def test_without_a_compiler_the_install_says_what_is_missing(tmp_path: Path) -> None:
    done = pip_wheel(tmp_path, CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stdout + done.stderr
    names = unpack(tmp_path)
    assert "fastpose/_C_missing.txt" in names
    assert not [name for name in names if name.endswith(".so")]
    code = "import fastpose; print(*fastpose.backend_status()['cpp'])"
    assert run_installed(tmp_path, code).startswith("False not built when fastpose was installed")
    assert "/nonexistent/c++" in run_installed(tmp_path, code)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FASTPOSE_CUDA": "ON"}, "FASTPOSE_CUDA=ON, but no working nvcc was found"),
        ({"CMAKE_ARGS": "-DFASTPOSE_CUDA=ON"}, "FASTPOSE_CUDA=ON, but no working nvcc was found"),
        ({"FASTPOSE_CUDA": "YES"}, "FASTPOSE_CUDA=YES: use AUTO, ON or OFF"),
    ],
    ids=["environment", "cmake_args", "unknown"],
)
def test_what_was_asked_for_and_cannot_be_built_fails(
    settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = pip_wheel(tmp_path, CUDACXX="/nonexistent/nvcc", **settings)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())


def test_sdist_contents(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    copy_tree(tree)
    code = "import setuptools.build_meta as b; b.build_sdist('..')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    folders = "csrc", "kernels", "fastpose"
    sources = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    kept = {".h", ".cpp", ".cu", ".py", ".pyi", ".yaml", ".typed", ".js", ".css", ".html"}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if path.suffix in kept or path.name == "py.typed"
    }
    assert expected | {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE"} <= names
    assert not [name for name in names if name.endswith(".so")]
