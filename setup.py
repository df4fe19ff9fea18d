"""Builds fastpose._C with CMake and without torch; where that fails, fastpose installs without it."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CAPTURE = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
EXT = runpy.run_path(str(ROOT / "fastpose" / "_ext.py"))  # the hash and the note are read there


class CMakeBuild(build_ext):
    def run(self) -> None:
        self.failure = ""
        super().run()
        package = ROOT / "fastpose" if self.inplace else Path(self.build_lib, "fastpose")
        note = package / EXT["MISSING_NOTE"]
        if self.failure:
            note.write_text(self.failure + "\n")
        else:
            note.unlink(missing_ok=True)

    def build_extension(self, ext: Extension) -> None:
        settings = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        asked = [value for value in settings if value.startswith("-DFASTPOSE_CUDA=")]
        mode = asked[-1].split("=")[1] if asked else os.environ.get("FASTPOSE_CUDA", "AUTO")
        for cuda in ("AUTO", "OFF") if mode.upper() == "AUTO" else (mode,):
            self.failure = self.cmake(ext, cuda, [value for value in settings if value not in asked])
            if not self.failure:
                return
        if mode.upper() not in ("AUTO", "OFF"):
            raise SystemExit(f"fastpose: FASTPOSE_CUDA={mode}: {self.failure}")
        print(f"fastpose: installing without its C++ extension, so PyTorch does its work: {self.failure}")

    def cmake(self, ext: Extension, cuda: str, settings: list[str]) -> str:
        """Configures and builds; what went wrong, in one line, or nothing."""
        build = Path(self.build_temp, cuda)
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), f"-DFASTPOSE_CUDA={cuda}"]
        configure += [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}", f"-DPython_EXECUTABLE={sys.executable}"]
        configure += [f"-DFASTPOSE_SOURCE_HASH={EXT['source_hash'](ROOT)}"]
        if "FASTPOSE_CUDA_ARCHS" in os.environ:
            configure += [f"-DFASTPOSE_CUDA_ARCHS={os.environ['FASTPOSE_CUDA_ARCHS']}"]
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")))
        if shutil.which("ninja", path=path):
            configure += ["-G", "Ninja"]
        try:
            import pybind11

            configure += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *settings]
            for command in (configure, ["cmake", "--build", str(build)]):
                print("fastpose:", shlex.join(command), flush=True)
                done = subprocess.run(command, env={**os.environ, "PATH": path}, **CAPTURE)
                print(done.stdout, flush=True)
                if done.returncode:
                    return first_error(done.stdout)
        except (ImportError, OSError) as error:
            return str(error)
        return ""


def first_error(log: str) -> str:
    found = re.search(r"(CMake Error|[^\n]*\berror\b)[^\n]*(\n+  [^\n]+)*", log, re.IGNORECASE)
    return " ".join(found.group().split()) if found else "the build failed and said nothing"


setup(ext_modules=[Extension("fastpose._C", [], optional=True)], cmdclass={"build_ext": CMakeBuild})
