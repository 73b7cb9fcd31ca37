"""Configuration: frozen dataclasses as the schema of YAML files, with dotted overrides.

build      a mapping → a config object; what does not fit is refused by its dotted key
describe   every key with its type, default and documentation
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
