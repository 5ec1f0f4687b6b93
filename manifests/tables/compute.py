"""Arrow's compute functions, which it makes while it is imported: no type checker sees them.

https://arrow.apache.org/docs/python/api/compute.html
"""

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
