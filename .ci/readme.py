"""Print the README's shell commands, or its Python examples, so that CI runs what it says.

python .ci/readme.py sh N    the N-th shell block, counted from 1
python .ci/readme.py python N the N-th Python example
"""

import re
import sys
from pathlib import Path

text = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
blocks = re.findall(rf"^```{sys.argv[1]}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
number = int(sys.argv[2]) if len(sys.argv) > 2 else 1
print(blocks[number - 1], end="")
