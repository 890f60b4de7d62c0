"""The proxy of `bmdb.testing.proxy`, which is part of the package, under the name that the tests know it by."""

import importlib
import pkgutil
import sys

import bmdb.testing.proxy as _ours
from bmdb.testing.proxy import ConnectionRecord, CutRule, ErrorRule, FramingError, HoldRule, Proxy, Rule, Statement

__all__ = ["ConnectionRecord", "CutRule", "ErrorRule", "FramingError", "HoldRule", "Proxy", "Rule", "Statement"]

# The same modules, not second copies of them: a rule of the one must be a rule of the other.
for _module in pkgutil.iter_modules(_ours.__path__):
    _found = importlib.import_module(f"{_ours.__name__}.{_module.name}")
    sys.modules[f"{__name__}.{_module.name}"] = _found
    globals()[_module.name] = _found
