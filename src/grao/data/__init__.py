"""Data: rows from the hub, files or memory, read as `Example`s, checked, and encoded to token ids."""

from grao.data.columns import Columns
from grao.data.data_config import DataConfig, DataSource
from grao.data.encode import Encoder, ensure_pad_token
from grao.data.example import Drop, Example, RowError, RowFormat
from grao.data.gsm8k import GSM8K
from grao.data.hh import HH
from grao.data.lengths import EncodedExample, EncodingReport
from grao.data.load import Examples, load_examples
from grao.data.validate import validate_examples

__all__ = [
    "GSM8K",
    "HH",
    "Columns",
    "DataConfig",
    "DataSource",
    "Drop",
    "EncodedExample",
    "Encoder",
    "EncodingReport",
    "Example",
    "Examples",
    "RowError",
    "RowFormat",
    "ensure_pad_token",
    "load_examples",
    "validate_examples",
]
