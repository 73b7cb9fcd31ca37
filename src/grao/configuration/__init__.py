"""Configuration: frozen dataclasses as the schema of YAML files, with dotted overrides.

`build` turns a mapping into a config object and names the dotted key of each error. `describe` lists every key with
its type, default and documentation.
"""

from grao.configuration.overrides import apply_overrides, with_values
from grao.configuration.schema import REQUIRED, Key, build, describe, dump_yaml, to_mapping, type_name
from grao.records.config_file import load_yaml

__all__ = [
    "REQUIRED",
    "Key",
    "apply_overrides",
    "build",
    "describe",
    "dump_yaml",
    "load_yaml",
    "to_mapping",
    "type_name",
    "with_values",
]
