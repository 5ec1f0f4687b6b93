"""Arrow's functions over arrays, which it makes when it is imported, so that no stub knows them."""

from typing import Any

import pyarrow.compute

arrow: Any = pyarrow.compute
