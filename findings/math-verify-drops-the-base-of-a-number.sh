#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0), default settings: MATH has golds such as 52_8, and the subscript is dropped when
# they are read. So 52_7 is the same answer, and so is 52_8 for a gold that is plain 52. Two more of plain numbers:
#
#   gold                 answer                                verdict
#   52_8                 52_7                                  equal
#   .0000672             .0000671                              equal: plain numbers are rounded to six decimals
#   1000                 1e3                                   not equal: it is read as E times 3
#
# The way out: compare plain numbers and numbers with a base before math-verify sees them.
#
# Needs: python3 with venv, and pip's index. Installs into a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" > "$folder/log" 2>&1 && "$folder/venv/bin/pip" install -q math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  >> "$folder/log" 2>&1 || { cat "$folder/log"; echo "FAILED: math-verify cannot be had here"; exit 1; }
seen=$("$folder/venv/bin/python" - <<'PY'
from math_verify import parse, verify

for gold, answer in [
    ("52_8", "52_7"),
    (".0000672", ".0000671"),
    ("1000", "1e3"),
    ("52_8", "51_8"),
]:
    print(verify(parse(f"${gold}$"), parse(f"${answer}$")), gold, "|", answer)
PY
)
expected='True 52_8 | 52_7
True .0000672 | .0000671
False 1000 | 1e3
False 52_8 | 51_8'
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { printf 'CHANGED: expected\n%s\n' "$expected"; exit 1; }
echo "as described"
