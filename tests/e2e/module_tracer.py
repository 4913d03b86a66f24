"""Notes which modules of FleetPulse a process enters, from SIGRTMIN+1 until SIGRTMIN+2.

``python module_tracer.py MODULE FILE ARGUMENT...`` runs a module as ``python -m`` does, with a call at the beginning of
each function of FleetPulse. At the second signal it writes the names of the entered modules to FILE, one a line. It
traces by calls of its own because the interpreter's tracers do not follow greenlets and threads.
"""

import ast
import builtins
import importlib.abc
import importlib.machinery
import os
import runpy
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2
_PACKAGE = "fleetpulse."


class Tracer(importlib.abc.MetaPathFinder):
    """Finds FleetPulse's modules, and loads them with the calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entered: set[str] = set()
        self._is_recording = False

    def install(self) -> None:
        vars(builtins)["_entered_module"] = self._note
        sys.meta_path.insert(0, self)
        signal.signal(BEGIN, lambda *_: self._begin())
        signal.signal(END, lambda *_: self._end())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PACKAGE) or fullname.endswith(("_pb2", "_pb2_grpc")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            spec.loader = _Loader(fullname, spec.origin)
        return spec

    def _note(self, module: str) -> None:
        if self._is_recording:
            self._entered.add(module)

    def _begin(self) -> None:
        self._entered.clear()
        self._is_recording = True

    def _end(self) -> None:
        self._is_recording = False
        part = self._path.with_suffix(f".{os.getpid()}")
        part.write_text("".join(f"{name}\n" for name in sorted(self._entered)))
        part.replace(self._path)


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType:
        """Skips the bytecode cache, which has code without the calls."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                call = ast.Call(ast.Name("_entered_module", ast.Load()), [ast.Constant(fullname)], [])
                has_docstring = ast.get_docstring(node, clean=False) is not None
                node.body.insert(int(has_docstring), ast.copy_location(ast.Expr(call), node.body[0]))
        code = compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
        assert isinstance(code, types.CodeType)
        return code


if __name__ == "__main__":
    _, module_name, file_name, *sys.argv[1:] = sys.argv
    Tracer(Path(file_name)).install()
    runpy.run_module(module_name, run_name="__main__", alter_sys=True)
